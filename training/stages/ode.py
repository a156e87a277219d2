"""Stage 4: the few-step student by ODE regression on paths of the causal network with guidance."""

from __future__ import annotations

import itertools
import logging
import random
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pyrf.config import StreamConfig
from pyrf.models.taehv import TAEHVCodec
from pyrf.training import parallel
from pyrf.training.latents import LatentScenes
from pyrf.training.models import NetworkSettings, TextToVideo, is_hidden, save_network
from pyrf.training.objectives.ode import ode_regression_loss, solve_ode
from pyrf.training.stages.causal import CHUNKS, CausalForcing
from pyrf.training.streams import Student, few_step_sigmas, score_streams
from pyrf.training.trainer import Draw, Stage

logger = logging.getLogger(__name__)


class OdeSettings(BaseModel):
    """The paths to learn from.

    Attributes:
        paths: how many batches of teacher paths are made, and kept on disk.
        steps_per_jump: Euler steps of the teacher between two levels of the few-step list.
    """

    model_config = ConfigDict(extra="forbid")

    paths: int
    steps_per_jump: int = 4
    guidance_scale: float = 3.0
    context_noise: float = 0.15
    eval_prompts: int = 48


class OdeStage(Stage):
    def __init__(
        self,
        settings: OdeSettings,
        teacher: TextToVideo,
        student: TextToVideo,
        network_settings: NetworkSettings,
        scenes: LatentScenes,
        codec: TAEHVCodec,
        stream: StreamConfig,
        batch: int,
        folder: Path,
    ) -> None:
        self.settings, self.network_settings, self.codec, self.stream = (
            settings,
            network_settings,
            codec,
            stream,
        )
        self.forcing = CausalForcing(scenes, stream, batch, settings.context_noise)
        self.sigmas = few_step_sigmas(stream)
        self.teacher = teacher.eval().requires_grad_(False)
        self.module: TextToVideo = student
        self.files = [folder / "paths" / f"{i}.safetensors" for i in range(settings.paths)]
        for i in range(parallel.rank(), settings.paths, parallel.world_size()):
            self._make_paths(i)
        parallel.barrier()

    def is_hidden(self, name: str) -> bool:
        return is_hidden(name)

    def _make_paths(self, index: int) -> None:
        """Make one batch of teacher paths, unless it is on disk."""
        file = self.files[index]
        if file.exists():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        generator, forcing, s = torch.Generator().manual_seed(10**6 + index), self.forcing, self.settings
        clean, captions, weights = forcing.draw(generator, random.Random(index), drop=0.0)
        context = forcing.context(clean, generator)
        levels = [*self.sigmas.tolist(), 0.0]
        grid = torch.cat(
            [torch.linspace(a, b, s.steps_per_jump + 1)[:-1] for a, b in itertools.pairwise(levels)]
        )
        grid = torch.cat([grid, torch.zeros(1)])
        with torch.no_grad():
            prompt = self.teacher.prompt(captions + [""] * len(clean))

            def velocity(x: Tensor, sigma: Tensor) -> Tensor:
                timesteps = (1000 * sigma).expand(2 * len(x), x.shape[1])
                v = forcing.forward(
                    self.teacher, torch.cat([context, context]), torch.cat([x, x]), timesteps, prompt
                )
                v, v_empty = v.chunk(2)
                return v_empty + s.guidance_scale * (v - v_empty)

            keep = list(range(0, len(grid) - 1, s.steps_per_jump))
            states, end = solve_ode(velocity, torch.randn(clean.shape, generator=generator), grid, keep)
        tensors = {"states": states, "end": end, "context": context, "weights": weights}
        temporary = file.with_suffix(".tmp")
        save_file(tensors, temporary, metadata={"captions": "\n".join(captions)})
        temporary.rename(file)
        if index % 10 == 0:
            logger.info("made %d of %d batches of teacher paths", index + 1, s.paths)

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        generator, rng = draw.generator, draw.rng
        with safe_open(rng.choice(self.files), "pt") as file:
            states, end, context, weights = (
                file.get_tensor(k) for k in ("states", "end", "context", "weights")
            )
            captions = file.metadata()["captions"].split("\n")
        batch, frames = end.shape[:2]
        level = torch.randint(len(self.sigmas), (batch, CHUNKS), generator=generator)
        level = self.forcing.per_frame(level)
        x_t = states[level, torch.arange(batch)[:, None], torch.arange(frames)]
        sigmas = self.sigmas[level]
        prompt = self.module.prompt(captions)
        velocity = self.forcing.forward(self.module, context, x_t, 1000 * sigmas, prompt)
        chunks = ode_regression_loss(velocity, x_t, sigmas, end).unflatten(1, (CHUNKS, -1)).mean(2)
        return (chunks * weights).sum() / weights.sum(), {}

    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        assert isinstance(module, TextToVideo)
        student = Student(module.dit, module.text, self.codec, self.stream)
        world, count = self.forcing.scenes.world, self.settings.eval_prompts
        return score_streams(student, world, count, folder / f"{step}.png")

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, TextToVideo)
        save_network(module, self.network_settings, folder)
