"""The causal network by teacher forcing, from the teacher's weights.

A sample holds three chunks: sink, previous and current, at positions 0, 3 and 6, which is all that a
stream with window 9 ever sees. In half of the samples the sink is from the stream's beginning and
the others are from up to LONGEST_SECONDS later, so the network meets late streams in training.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.noise import below, gauss, uniform
from pyrf.loop.rope import rope_table
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.models.dit.attention import PartsAttention
from pyrf.models.dit.model import PromptCache
from pyrf.models.dit.parts import teacher_forcing_parts
from pyrf.settings import Settings
from pyrf.training.objectives.flow_matching import flow_matching_loss, shifted_sigmas, subject_weights
from pyrf.training.runner.stage import Draw
from pyrf.training.scratch.latents import NEAR, LatentScenes
from pyrf.training.stages.data import Given, PathStart
from pyrf.training.stages.networks import NetworkStage, TextToVideo

CHUNKS = 3


class CausalSettings(Settings):
    """What the causal network sees.

    Attributes:
        subject_weight: of a cell with a subject in it, against one without.
        context_noise: largest noise level of the clean context, which a stream's own errors resemble.
    """

    shift: float = Field(default=3.0, gt=0)
    drop: float = Field(default=0.1, ge=0, le=1)
    subject_weight: float = Field(default=1.0, gt=0)
    context_noise: float = Field(default=0.15, ge=0, le=1)
    eval_prompts: int = Field(default=48, gt=0)


class CausalForcing:
    """Teacher-forced forwards over [clean past; noisy] and the samples they need."""

    def __init__(self, scenes: LatentScenes, stream: StreamConfig, batch: int, context_noise: float) -> None:
        self.scenes, self.stream, self.batch, self.context_noise = scenes, stream, batch, context_noise
        self.frames = CHUNKS * stream.chunk_frames
        if stream.slots != CHUNKS or self.frames != NEAR:
            raise ValueError(
                f"the scenes hold {NEAR} latent frames in {CHUNKS} chunks, "
                f"the stream's window {stream.window_frames} in {stream.slots}"
            )
        # Nothing looks at the last clean chunk: it is left out of the sequence.
        self.past = self.frames - stream.chunk_frames
        self.size = LatentSize(*scenes.near.shape[3:])
        self.parts = teacher_forcing_parts(CHUNKS, stream.chunk_frames * self.size.tokens)
        self.positions = [*range(self.past), *range(self.frames)]

    def draw(
        self, generator: torch.Generator, rng: random.Random, drop: float
    ) -> tuple[Tensor, Tensor, list[str], Tensor]:
        """Clean latents [B, 9, C, h, w], where subjects are, captions, and the weight of each chunk [B, 3].

        Where the sink is from long before, the second chunk does not follow it: it has weight 0.
        """
        index = below(len(self.scenes), (self.batch,), generator)
        late = torch.tensor([rng.random() < 0.5 for _ in range(self.batch)], dtype=torch.bool, device="cpu")
        near, far = self.scenes.near[index].float(), self.scenes.far[index].float()
        chunk = self.stream.chunk_frames
        jumped = torch.cat([near[:, :chunk], far], dim=1)
        clean = torch.where(late[:, None, None, None, None], jumped, near)
        near, far = (subjects[index] for subjects in self.scenes.subjects)
        jumped = torch.cat([near[:, :chunk], far], dim=1)
        cells = torch.where(late[:, None, None, None], jumped, near)
        weights = torch.ones(self.batch, CHUNKS, dtype=torch.float32, device="cpu")
        weights[late, 1] = 0
        captions = ["" if rng.random() < drop else self.scenes.caption(int(i), rng) for i in index]
        return clean, cells, captions, weights

    def context(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The clean latents with a little noise, of another level in each sample."""
        level = self.context_noise * uniform((len(clean), 1, 1, 1, 1), generator)
        return clean + level * gauss(clean.shape, generator)

    def forward(
        self, network: TextToVideo, context: Tensor, noisy: Tensor, timesteps: Tensor, prompt: PromptCache
    ) -> Tensor:
        """Velocity of the noisy half, [B, 9, C, h, w]; timesteps [B, 9]."""
        dit = network.dit
        rope = rope_table(dit.config, self.positions, self.size, dtype=dit.dtype, device=dit.device)
        flow = dit(
            torch.cat([context[:, : self.past], noisy], dim=1),
            torch.cat([torch.zeros_like(timesteps[:, : self.past]), timesteps], dim=1),
            prompt,
            attention=PartsAttention(rope, self.parts),
        )
        return flow[:, self.past :]

    @property
    def chunk_frames(self) -> int:
        return self.stream.chunk_frames

    def start(self, index: int) -> PathStart:
        """Starts of teacher paths: a context of clean latents, as in training."""
        generator = torch.Generator("cpu").manual_seed(10**6 + index)
        clean, _, captions, weights = self.draw(generator, random.Random(index), drop=0.0)
        context = self.context(clean, generator)
        noise = gauss(clean.shape, generator)
        return PathStart(noise, captions, {"context": context, "weights": weights})

    def teach(
        self, network: TextToVideo, x: Tensor, timesteps: Tensor, prompt: PromptCache, given: Given
    ) -> Tensor:
        """Teacher and student see the same."""
        return self.forward(network, given["context"], x, timesteps, prompt)

    learn = teach

    def per_frame(self, of_chunks: Tensor) -> Tensor:
        """[B, chunks] -> [B, frames]."""
        return of_chunks.repeat_interleave(self.stream.chunk_frames, dim=1)


class CausalStage(NetworkStage):
    def __init__(
        self,
        settings: CausalSettings,
        network: TextToVideo,
        scenes: LatentScenes,
        codec: TAEHVCodec,
        stream: StreamConfig,
        batch: int,
    ) -> None:
        self.settings, self.codec, self.stream = settings, codec, stream
        self.forcing = CausalForcing(scenes, stream, batch, settings.context_noise)
        self.module = network

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        generator, rng = draw.generator, draw.rng
        forcing = self.forcing
        clean, cells, captions, weights = forcing.draw(generator, rng, self.settings.drop)
        sigmas = forcing.per_frame(shifted_sigmas(len(clean), CHUNKS, self.settings.shift, generator))
        noise = gauss(clean.shape, generator)
        context, prompt = forcing.context(clean, generator), self.module.prompt(captions)
        error = flow_matching_loss(
            lambda x, t: forcing.forward(self.module, context, x, t, prompt),
            clean,
            sigmas,
            noise,
            subject_weights(cells, self.settings.subject_weight),
        )
        chunks = error.unflatten(1, (CHUNKS, -1)).mean(2)
        loss = (chunks * weights).sum() / weights.sum()
        seen = [i for i in range(CHUNKS) if weights[:, i].any()]
        return loss, {f"loss_{i}": float(chunks.detach()[weights[:, i] > 0, i].mean()) for i in seen}

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        count, sheet = self.settings.eval_prompts, folder / f"{step}.png"
        return self.forcing.scenes.score(self.module, self.codec, self.stream, count, sheet)
