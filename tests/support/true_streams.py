"""Streams of true scenes in place of a network's, which tests spoil in known ways."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pyrf.evaluation.report.examined import Examined
from pyrf.pipeline import StreamingPipeline
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.world import Frames, World, WorldPrompt

FIRST, CHUNK = 9, 12
"""Frames of the first chunk, and of the others."""


class _Model:
    """Tells of frames and chunks as a pipeline of the tiny bundle does."""

    @property
    def model(self) -> _Model:
        return self

    def start_of_chunk(self, chunk: int) -> int:
        return 0 if chunk == 0 else FIRST + (chunk - 1) * CHUNK

    def chunk_of_frame(self, frame: int) -> int:
        return next(chunk for chunk in range(10**6) if self.start_of_chunk(chunk) >= frame)

    def num_frames_of(self, chunks: int) -> int:
        return self.start_of_chunk(chunks)


def unspoilt(frames: Frames, start: int) -> Frames:
    return frames


@dataclass(frozen=True)
class TrueStreams(Examined):
    """Streams that show the very scenes with which parts compare them.

    Attributes:
        spoil: changes a chunk, [T, H, W, 3], that starts at a frame.
        follows: whether prompts that begin later are shown.
    """

    pipe: StreamingPipeline = field(default=_Model())  # type: ignore[assignment]
    world: World = field(default_factory=ShapesWorld)
    spoil: Callable[[Frames, int], Frames] = unspoilt
    follows: bool = True

    def chunks(
        self,
        prompts: list[WorldPrompt],
        seeds: range,
        num_frames: int,
        later: Mapping[int, list[WorldPrompt]] | None = None,
    ) -> Iterator[Frames]:
        chunk = done = 0
        while done < num_frames:
            if self.follows:
                prompts = (later or {}).get(chunk, prompts)
            count = min(FIRST if chunk == 0 else CHUNK, num_frames - done)
            scenes = [
                self.world.scene_for(prompt, random.Random(f"true {seed}"))
                for prompt, seed in zip(prompts, seeds)
            ]
            yield np.stack([self.spoil(scene.render(done, count), done) for scene in scenes])
            done, chunk = done + count, chunk + 1
