"""What an adapter learns from: the bundle's own streams, with a change of what they show."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle.bundle import Bundle
from pyrf.loop.sampler import ChunkLoop, FewStepSampler, SeededNoise
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.worlds.world import Frames, Scene, World

logger = logging.getLogger(__name__)

FIRST_SCENE = 7 * 10**7
"""Seed of the first scene whose caption is streamed; no other training draws from there."""
BATCH = 16
"""Streams that are made side by side."""

Change = Callable[[Frames, Scene], Frames | None]
"""What a clip of a scene's caption shall show in its place; None where it stays."""


@dataclass(frozen=True)
class ChangedClips:
    """The first chunks of streams of a bundle, as they shall become.

    Attributes:
        captions: of the clips.
        clean: their latents, [clips, F, C, h, w].
        noise: of each denoise call, [clips, calls, F, C, h, w]; the first is what the chunk starts from.
    """

    captions: list[str]
    clean: Tensor
    noise: Tensor

    def __len__(self) -> int:
        return len(self.captions)


@torch.no_grad()
def changed_clips(bundle: Bundle, world: World, count: int, change: Change) -> ChangedClips:
    """Stream captions of a world, as many chunks as a window holds, and change what they show.

    The change passes through the codec: a clip's latents are moved by the difference that it makes to their
    encoding. So clips that stay have the very latents of the stream.

    Args:
        count: of clips; about half of them should change, so that the rest is learnt to stay.

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
    for first in range(FIRST_SCENE, FIRST_SCENE + count, BATCH):
        seeds = range(first, min(first + BATCH, FIRST_SCENE + count))
        scenes = [world.scene(seed) for seed in seeds]
        told = [scene.caption(random.Random(seed)) for scene, seed in zip(scenes, seeds)]
        rollout = TorchRollout(model, stream, len(seeds), size, text.encode(told))
        drawn: list[Tensor] = []
        noise = SeededNoise(seeds, rollout.shape)

        def draw(drawn: list[Tensor] = drawn, noise: SeededNoise = noise) -> Tensor:
            drawn.append(noise())
            return drawn[-1]

        loop = ChunkLoop(rollout, stream, draw)
        clean = torch.cat([loop.next_chunk() for _ in range(stream.slots)], dim=1)
        frames = codec.decoder().decode(clean)
        for i, scene in enumerate(scenes):
            changed = change(frames[i].numpy(), scene)
            if changed is not None:
                clean[i] += _encoded(codec, changed) - _encoded(codec, frames[i].numpy())
        captions += told
        logger.info("streams to learn from: %d of %d", len(captions), count)
        cleans.append(clean.clone())
        noises.append(torch.stack(drawn, 1).unflatten(1, (stream.slots, calls)).transpose(1, 2).flatten(2, 3))
    return ChangedClips(captions, torch.cat(cleans), torch.cat(noises))


def _encoded(codec: Codec, frames: Frames) -> Tensor:
    return codec.encode(torch.from_numpy(np.ascontiguousarray(frames))[None])[0].float()
