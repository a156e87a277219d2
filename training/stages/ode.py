"""The few-step student by ODE regression on the teacher's guided paths."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.loop.noise import below
from pyrf.loop.sampler import FewStepSampler
from pyrf.loop.schedule import TIMESTEPS
from pyrf.models.codecs.codec import Codec
from pyrf.settings import Settings
from pyrf.training.objectives.ode import ode_regression_loss, solve_ode
from pyrf.training.runner.origin import fingerprint
from pyrf.training.runner.precision import products
from pyrf.training.runner.stage import Draw
from pyrf.training.stages.data import Data, Paths
from pyrf.training.stages.networks import NetworkStage, TextToVideo
from pyrf.training.stages.paths import END, STATES, PathShards


class OdeSettings(Settings):
    """The paths to learn from.

    Attributes:
        paths: how many shards of teacher paths are made, and kept on disk.
        shard_batches: batches of a shard.
        steps_per_jump: Euler steps of the teacher between two levels of the few-step list.
        context_noise: largest noise level of the clean context, where paths have one.
        turns: share of the paths whose caption changes on the way, where the data have such.
    """

    paths: int = Field(gt=0)
    shard_batches: int = Field(default=1, gt=0)
    steps_per_jump: int = Field(default=4, gt=0)
    guidance_scale: float = 3.0
    context_noise: float = Field(default=0.15, ge=0, le=1)
    turns: float = Field(default=0.0, ge=0, le=1)
    eval_prompts: int = Field(default=48, gt=0)


def few_step_sigmas(stream: StreamConfig) -> Tensor:
    """Noise levels of the denoise calls, falling, float32."""
    return torch.tensor(FewStepSampler(stream).timesteps, dtype=torch.float32, device="cpu") / TIMESTEPS


class OdeStage(NetworkStage):
    """Makes the paths that are missing, then learns from them.

    Args:
        paths: how both networks see a clip.
        batch: samples of a micro-batch, and of a batch of paths.
        folder: of the stage, where paths are kept.
        half: the teacher's products are computed in bfloat16.
        origin: fingerprint of the teacher and of what its paths begin with.
    """

    def __init__(
        self,
        settings: OdeSettings,
        *,
        teacher: TextToVideo,
        student: TextToVideo,
        data: Data,
        paths: Paths,
        codec: Codec,
        stream: StreamConfig,
        batch: int,
        folder: Path,
        origin: str,
        half: bool = False,
    ) -> None:
        self.settings, self.data, self.paths, self.batch = settings, data, paths, batch
        self.codec, self.stream, self.half = codec, stream, half
        self.sigmas = few_step_sigmas(stream)
        self.module = student
        shaping = settings.model_dump(exclude={"paths", "eval_prompts"})
        origin = fingerprint(origin, shaping, batch, stream, *(["bfloat16"] if half else []))
        self.shards = PathShards(folder / "paths", settings.paths, origin)
        teacher.eval().requires_grad_(False)
        self.shards.make(lambda index: self._make_shard(teacher, index))

    def _make_shard(self, teacher: TextToVideo, index: int) -> tuple[dict[str, Tensor], list[str]]:
        count = self.settings.shard_batches
        parts = [self._make_paths(teacher, index * count + i) for i in range(count)]
        tensors = {name: torch.cat([part[name] for part, _ in parts]) for name in parts[0][0]}
        return tensors, [caption for _, captions in parts for caption in captions]

    @torch.no_grad()
    def _make_paths(self, teacher: TextToVideo, index: int) -> tuple[dict[str, Tensor], list[str]]:
        """One batch of teacher paths."""
        start, scale = self.paths.start(index), self.settings.guidance_scale
        batch, frames = start.noise.shape[:2]
        given = {name: torch.cat([t, t]) for name, t in start.given.items()}
        with products(teacher.dit.device, half=self.half):
            prompt = teacher.prompt(start.captions + [""] * batch)

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            timesteps = (TIMESTEPS * sigma).to(x.device).expand(2 * batch, frames)
            with products(x.device, half=self.half):
                both = self.paths.teach(teacher, torch.cat([x, x]), timesteps, prompt, given).float()
            v, v_empty = both.chunk(2)
            return v_empty + scale * (v - v_empty)

        steps = self.settings.steps_per_jump
        levels = itertools.pairwise([*self.sigmas.tolist(), 0.0])
        grid = torch.cat(
            [torch.linspace(a, b, steps + 1, dtype=torch.float32, device="cpu")[:-1] for a, b in levels]
        )
        grid = torch.cat([grid, torch.zeros(1, dtype=torch.float32, device="cpu")])
        states, end = solve_ode(velocity, start.noise, grid, list(range(0, len(grid) - 1, steps)))
        return {STATES: states.transpose(0, 1), END: end, **start.given}, start.captions

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        device = self.module.dit.device
        given, captions = self.shards.read(self.batch, draw.rng)
        states, end = given.pop(STATES), given.pop(END)
        batch, frames = end.shape[:2]
        chunk = self.paths.chunk_frames
        level = below(len(self.sigmas), (batch, frames // chunk), draw.generator)
        level = level.repeat_interleave(chunk, dim=1)
        whole = partial(torch.arange, dtype=torch.int64, device="cpu")
        x_t = states[whole(batch)[:, None], level, whole(frames)].to(device)
        sigmas, end = self.sigmas[level].to(device), end.to(device)
        given = {name: tensor.to(device) for name, tensor in given.items()}
        prompt = self.module.prompt(captions)
        velocity = self.paths.learn(self.module, x_t, TIMESTEPS * sigmas, prompt, given)
        errors = ode_regression_loss(velocity, x_t, sigmas, end).unflatten(1, (-1, chunk)).mean(2)
        weights = given["weights"]
        return (errors * weights).sum() / weights.sum(), {}

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        count, sheet = self.settings.eval_prompts, folder / f"{step}.png"
        return self.data.score(self.module, self.codec, self.stream, count, sheet)
