"""The causal network by teacher forcing, from the teacher's weights.

A sample holds three chunks: sink, previous and current, at positions 0, 3 and 6, which is all that a
stream with window 9 ever sees. In half of the samples the sink is from the stream's beginning and
the others are from up to LONGEST_SECONDS later, so the network meets late streams in training. In a share
of them one attribute turns at a border of chunks, and the caption is that of what follows: without such
samples every context agrees with its caption, and a network learns to believe the context alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.noise import below, gauss, uniform
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.models.dit.model import PromptCache
from pyrf.settings import Settings
from pyrf.training.objectives.flow_matching import flow_matching_loss, shifted_sigmas, subject_weights
from pyrf.training.runner.stage import Draw
from pyrf.training.scratch.latents import NEAR, TURN_AT, LatentScenes
from pyrf.training.stages.data import Given, PathStart
from pyrf.training.stages.forcing import TeacherForcing
from pyrf.training.stages.networks import NetworkStage, TextToVideo

CHUNKS = 3


class CausalSettings(Settings):
    """What the causal network sees.

    Attributes:
        subject_weight: of a cell with a subject in it, against one without, see `subject_weights`.
        motion_weight: of what changes from one latent frame to the next, see `flow_matching_loss`.
        context_noise: largest noise level of the clean context, which a stream's own errors resemble.
        turns: share of the samples in which one attribute turns.
    """

    shift: float = Field(default=3.0, gt=0)
    drop: float = Field(default=0.1, ge=0, le=1)
    subject_weight: float = Field(default=1.0, gt=0)
    motion_weight: float = Field(default=0.0, ge=0)
    context_noise: float = Field(default=0.15, ge=0, le=1)
    turns: float = Field(default=0.0, ge=0, le=1)
    eval_prompts: int = Field(default=48, gt=0)


class _Sample(NamedTuple):
    """Latents [9, C, h, w], where subjects are, how to word it, and the weight of each chunk."""

    clean: Tensor
    cells: Tensor
    caption: Callable[[int, random.Random], str]
    weights: tuple[float, float, float]


class CausalForcing(TeacherForcing):
    """Teacher-forced forwards and the samples they need, on `device`."""

    def __init__(
        self,
        scenes: LatentScenes,
        stream: StreamConfig,
        batch: int,
        context_noise: float,
        turns: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(stream, LatentSize(*scenes.near.shape[3:]))
        self.scenes, self.batch, self.context_noise = scenes, batch, context_noise
        self.turns, self.device = turns, torch.device(device)
        frames = CHUNKS * stream.chunk_frames
        if stream.slots != CHUNKS or frames != NEAR:
            raise ValueError(
                f"the scenes hold {NEAR} latent frames in {CHUNKS} chunks, "
                f"the stream's window {stream.window_frames} in {stream.slots}"
            )

    def draw(
        self, generator: torch.Generator, rng: random.Random, drop: float
    ) -> tuple[Tensor, Tensor, list[str], Tensor]:
        """Clean latents [B, 9, C, h, w], where subjects are, captions, and the weight of each chunk [B, 3].

        A chunk that does not follow from the one before it, or not as its caption says, has weight 0.
        """
        index = below(len(self.scenes), (self.batch,), generator).tolist()
        kinds = [rng.random() for _ in index]
        samples = [self._sample(i, kind) for i, kind in zip(index, kinds)]
        captions = [
            "" if rng.random() < drop else sample.caption(i, rng) for i, sample in zip(index, samples)
        ]
        clean = torch.stack([sample.clean for sample in samples])
        cells = torch.stack([sample.cells for sample in samples])
        weights = torch.tensor([s.weights for s in samples], dtype=torch.float32, device="cpu")
        return clean.to(self.device), cells.to(self.device), captions, weights.to(self.device)

    def _sample(self, index: int, kind: float) -> _Sample:
        """A scene's sample; `kind`, uniform in 0..1, says which of its stretches it joins."""
        scenes, chunk = self.scenes, self.chunk_frames
        stretches = (part[index].float() for part in (scenes.near, scenes.far, scenes.turned))
        near, far, turned = zip(stretches, (part[index] for part in scenes.subjects))
        if kind < self.turns:
            # half of them turn at the third chunk, half at the second, after which one more is seen
            late = kind < self.turns / 2
            first, last = (0, chunk) if late else (chunk, 2 * chunk)
            clean, cells = (torch.cat([a[first:TURN_AT], b[:last]]) for a, b in zip(near, turned))
            return _Sample(clean, cells, scenes.turned_caption, (0, 0 if late else 1, 1))
        if kind < (1 + self.turns) / 2:
            clean, cells = (torch.cat([a[:chunk], b]) for a, b in zip(near, far))
            return _Sample(clean, cells, scenes.caption, (1, 0, 1))
        return _Sample(*near, scenes.caption, (1, 1, 1))

    def context(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """The clean latents with a little noise, of another level in each sample."""
        level = self.context_noise * uniform((len(clean), 1, 1, 1, 1), generator)
        return clean + (level * gauss(clean.shape, generator)).to(clean.device)

    def start(self, index: int) -> PathStart:
        """Starts of teacher paths: a context of clean latents, as in training."""
        generator = torch.Generator("cpu").manual_seed(10**6 + index)
        clean, _, captions, weights = self.draw(generator, random.Random(index), drop=0.0)
        context = self.context(clean, generator)
        noise = gauss(clean.shape, generator).to(self.device)
        return PathStart(noise, captions, {"context": context, "weights": weights})

    def teach(
        self, network: TextToVideo, x: Tensor, timesteps: Tensor, prompt: PromptCache, given: Given
    ) -> Tensor:
        """Teacher and student see the same."""
        return self.forward(network, given["context"], x, timesteps, prompt)

    learn = teach


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
        self.forcing = CausalForcing(
            scenes, stream, batch, settings.context_noise, settings.turns, network.dit.device
        )
        self.module = network

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        generator, rng = draw.generator, draw.rng
        forcing = self.forcing
        clean, cells, captions, weights = forcing.draw(generator, rng, self.settings.drop)
        levels = shifted_sigmas(len(clean), CHUNKS, self.settings.shift, generator)
        sigmas = forcing.per_frame(levels).to(clean.device)
        noise = gauss(clean.shape, generator).to(clean.device)
        context, prompt = forcing.context(clean, generator), self.module.prompt(captions)
        error = flow_matching_loss(
            lambda x, t: forcing.forward(self.module, context, x, t, prompt),
            clean,
            sigmas,
            noise,
            subject_weights(cells, self.settings.subject_weight, sigmas),
            motion_weight=self.settings.motion_weight,
            chunk_frames=self.stream.chunk_frames,
        )
        chunks = error.unflatten(1, (CHUNKS, -1)).mean(2)
        loss = (chunks * weights).sum() / weights.sum()
        seen = [i for i in range(CHUNKS) if weights[:, i].any()]
        return loss, {f"loss_{i}": float(chunks.detach()[weights[:, i] > 0, i].mean()) for i in seen}

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        count, sheet = self.settings.eval_prompts, folder / f"{step}.png"
        return self.forcing.scenes.score(self.module, self.codec, self.stream, count, sheet)
