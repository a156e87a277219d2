"""What is examined: a pipeline and the world that it is to show; and its streams, chunk by chunk."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pyrf.evaluation.held_out import TitledVideo
from pyrf.evaluation.report.measures import Measure
from pyrf.evaluation.streams import batches
from pyrf.pipeline import StreamingPipeline
from pyrf.worlds.world import Frames, World, WorldPrompt

BATCH = 4
"""Prompts that are streamed side by side: few, as five seconds of each are held."""


@dataclass(frozen=True)
class Examined:
    """A pipeline, and the world that it is to show, of the same size and rate."""

    pipe: StreamingPipeline
    world: World

    def frames_of(self, seconds: float) -> int:
        """Frames that the world shows in so many seconds."""
        return round(seconds * self.world.fps)

    def chunks(
        self,
        prompts: list[WorldPrompt],
        seeds: range,
        num_frames: int,
        later: Mapping[int, list[WorldPrompt]] | None = None,
    ) -> Iterator[Frames]:
        """The chunks of streams side by side, uint8 [B, T, H, W, 3]; the last one is cut to `num_frames`.

        Args:
            later: chunk -> the prompts from there on.
        """
        timeline = {chunk: [p.text for p in changed] for chunk, changed in (later or {}).items()}
        with self.pipe.stream([p.text for p in prompts], list(seeds), timeline=timeline) as stream:
            done = 0
            while done < num_frames:
                frames = next(stream).frames[:, : num_frames - done]
                done += frames.shape[1]
                yield frames

    def clips(self, prompts: list[WorldPrompt], seconds: float) -> Iterator[tuple[int, WorldPrompt, Frames]]:
        """Number, prompt and whole clip, [T, H, W, 3], for each prompt; prompt n has seed n."""
        for seeds, part in batches(prompts, BATCH):
            clips = np.concatenate(list(self.chunks(part, seeds, self.frames_of(seconds))), axis=1)
            yield from zip(seeds, part, clips)

    def true_clip(self, number: int, prompt: WorldPrompt, num_frames: int) -> Frames:
        """The beginning of a scene that shows a prompt, [num_frames, H, W, 3]; the same for each number."""
        return self.world.scene_for(prompt, random.Random(f"true {number}")).render(0, num_frames)


@dataclass(frozen=True)
class Part:
    """What was measured, and clips to look at."""

    measures: list[Measure]
    rows: list[TitledVideo]


def kept_frames(frames: Frames, count: int = 8) -> Frames:
    """Copies of `count` frames at even distances: what a sheet shows of a clip."""
    return frames[np.linspace(0, len(frames) - 1, count).astype(int)].copy()
