"""Wan's prompts as the data of the distilling stages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.rope import rope_table
from pyrf.loop.sampler import SeededNoise
from pyrf.models.codecs.codec import Codec
from pyrf.models.dit.attention import PartsAttention
from pyrf.models.dit.model import PromptCache
from pyrf.models.dit.parts import window_parts
from pyrf.models.dit.rollout import ModelRollout
from pyrf.training.runner import processes
from pyrf.training.runner.stage import Draw
from pyrf.training.stages.data import Given, PathStart
from pyrf.training.stages.networks import TextToVideo
from pyrf.training.wan.prompts import PromptOrder
from pyrf.video.strips import contact_sheet

LARGEST_SIDE = 416
"""Pixels of logged videos."""


class WanData:
    """Captions by sample number, starts of teacher paths, and streams to look at (`stages/data.py`).

    Args:
        latent_shape: [C, h, w].
        latent_frames: of a clip, whole chunks.
        batch: paths that are started at once.

    Raises:
        ValueError: when clips do not split into chunks.
    """

    def __init__(
        self,
        prompts: PromptOrder,
        stream: StreamConfig,
        latent_shape: tuple[int, int, int],
        latent_frames: int,
        batch: int,
    ) -> None:
        if latent_frames % stream.chunk_frames:
            raise ValueError(
                f"latent_frames must be a multiple of chunk_frames ({stream.chunk_frames}), "
                f"got {latent_frames}"
            )
        self.prompts, self.stream, self.batch = prompts, stream, batch
        self.latent_shape, self.latent_frames = latent_shape, latent_frames
        self.device = processes.device()
        self.size = LatentSize(*latent_shape[1:])

    @property
    def chunk_frames(self) -> int:
        return self.stream.chunk_frames

    def captions(self, draw: Draw) -> list[str]:
        return self.prompts(draw.samples)

    def turns(self, draw: Draw) -> tuple[list[str], list[str]]:
        """From the prompts of the samples that follow these to their own."""
        count = len(draw.samples)
        return self.prompts(range(draw.samples.stop, draw.samples.stop + count)), self.captions(draw)

    def start(self, index: int) -> PathStart:
        """Paths begin at noise alone."""
        numbers = range(index * self.batch, (index + 1) * self.batch)
        noise = SeededNoise(numbers, (self.latent_frames, *self.latent_shape), self.device)()
        weights = torch.ones(
            self.batch,
            self.latent_frames // self.chunk_frames,
            dtype=torch.float32,
            device=self.device,
        )
        return PathStart(noise, self.prompts(numbers), {"weights": weights})

    def teach(
        self, network: TextToVideo, x: Tensor, timesteps: Tensor, prompt: PromptCache, given: Given
    ) -> Tensor:
        """The teacher sees the whole clip, at one timestep."""
        return network.dit(x, timesteps[:, 0], prompt)

    def learn(
        self, network: TextToVideo, x: Tensor, timesteps: Tensor, prompt: PromptCache, given: Given
    ) -> Tensor:
        """A chunk sees those before it within the window, each at its own timestep.

        A stream's sink stands where the oldest of these does, so distances are those of a stream.
        """
        dit, tokens = network.dit, self.chunk_frames * self.size.tokens
        rope = rope_table(dit.config, range(x.shape[1]), self.size, dtype=dit.dtype, device=dit.device)
        parts = window_parts(x.shape[1] // self.chunk_frames, tokens, self.stream.slots)
        return dit(x, timesteps, prompt, attention=PartsAttention(rope, parts))

    @torch.no_grad()
    def score(
        self, network: TextToVideo, codec: Codec, stream: StreamConfig, count: int, sheet: Path
    ) -> dict[str, Any]:
        """Streams of the file's first prompts, to look at; all processes make the same ones."""
        captions = [self.prompts.prompts[i % len(self.prompts.prompts)] for i in range(count)]
        videos: dict[str, Any] = {}
        for seed, caption in enumerate(captions):
            noise = SeededNoise([seed], (stream.chunk_frames, *self.latent_shape), self.device)
            rollout = ModelRollout(network.dit, stream, network.prompt([caption]), self.size)
            decoder, last = codec.decoder(), len(stream.denoising_steps) - 1
            chunks = [
                decoder.decode(rollout.next_chunk(noise, last))
                for _ in range(self.latent_frames // stream.chunk_frames)
            ]
            video = torch.cat(chunks, 1)[0].cpu().numpy()
            every = math.ceil(max(video.shape[1:3]) / LARGEST_SIDE)
            videos[f"videos/{seed} {caption}"] = video[:, ::every, ::every]
        if processes.rank() == 0:
            contact_sheet(list(videos.items()), sheet)
        return videos
