"""What an adapter learns from: the bundle's own streams, with a change of what they show."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle.bundle import Bundle
from pyrf.loop.sampler import ChunkLoop, FewStepSampler, SeededNoise
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.training.lora.lesson import Lesson
from pyrf.worlds.world import Frames

logger = logging.getLogger(__name__)

FIRST_SEED = 7 * 10**7
"""Of the first lesson and its stream; no other training draws from there."""
BATCH = 16
"""Streams that are made side by side."""


@dataclass(frozen=True)
class ChangedClips:
    """The first chunks of streams of a bundle, as they shall become.

    Attributes:
        captions: that the adapter learns for the clips.
        clean: their latents, [clips, F, C, h, w].
        noise: of each denoise call, [clips, calls, F, C, h, w]; the first is what the chunk starts from.
    """

    captions: list[str]
    clean: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.captions)


@torch.no_grad()
def changed_clips(bundle: Bundle, count: int, lesson_of: Callable[[int], Lesson]) -> ChangedClips:
    """Stream what lessons say, as many chunks as a window holds, and change what the streams show.

    The change passes through the codec: a clip's latents are moved by the difference that it makes to their
    encoding. So clips that stay have the very latents of the stream.

    Args:
        count: of clips.
        lesson_of: gives the lesson of a seed. About half of them should change nothing, so that the adapter
            learns to keep the rest.

    Raises:
        ValueError: when the bundle's first chunk takes other steps than the later ones.
    """
    stream, codec, text = bundle.stream_config, bundle.codec(), bundle.text_encoder()
    if FewStepSampler(stream, first=True).timesteps != FewStepSampler(stream).timesteps:
        raise ValueError(
            f"{bundle.path}: its first chunk takes steps of its own, which no adapter learns yet"
        )
    model, calls = bundle.transformer(), len(FewStepSampler(stream).timesteps)
    size = latent_size(bundle.height, bundle.width, codec)
    captions: list[str] = []
    cleans, noises = [], []
    for first in range(FIRST_SEED, FIRST_SEED + count, BATCH):
        seeds = range(first, min(first + BATCH, FIRST_SEED + count))
        lessons = [lesson_of(seed) for seed in seeds]
        prompts = text.encode([lesson.streamed for lesson in lessons])
        rollout = TorchRollout(model, stream, len(seeds), size, prompts)
        drawn: list[Tensor] = []
        noise = SeededNoise(seeds, rollout.shape)

        def draw(drawn: list[Tensor] = drawn, noise: SeededNoise = noise) -> Tensor:
            drawn.append(noise())
            return drawn[-1]

        loop = ChunkLoop(rollout, stream, draw)
        clean = torch.cat([loop.next_chunk() for _ in range(stream.slots)], dim=1)
        frames = codec.decoder().decode(clean)
        for i, lesson in enumerate(lessons):
            if lesson.change is not None:
                shown = frames[i].numpy()
                clean[i] += _encoded(codec, lesson.change(shown)) - _encoded(codec, shown)
        captions += [lesson.told for lesson in lessons]
        logger.info("streams to learn from: %d of %d", len(captions), count)
        cleans.append(clean.clone())
        noises.append(torch.stack(drawn, 1).unflatten(1, (stream.slots, calls)).transpose(1, 2).flatten(2, 3))
    return ChangedClips(captions, torch.cat(cleans), torch.cat(noises))


def _encoded(codec: Codec, frames: Frames) -> Tensor:
    return codec.encode(torch.from_numpy(np.ascontiguousarray(frames))[None])[0].float()
