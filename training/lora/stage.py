"""Training of an adapter on a bundle's own streams, changed: the few-step student learns to end elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pyrf.bundle.bundle import Bundle
from pyrf.evaluation.streams import Student, make_videos
from pyrf.loop.noise import below, gauss, uniform
from pyrf.loop.schedule import TIMESTEPS, add_noise
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.settings import Settings
from pyrf.training.lora.clips import ChangedClips
from pyrf.training.lora.network import AdaptedTextToVideo
from pyrf.training.objectives.ode import ode_regression_loss
from pyrf.training.runner.stage import Draw
from pyrf.training.stages.forcing import TeacherForcing
from pyrf.training.stages.networks import NetworkStage
from pyrf.training.stages.ode import few_step_sigmas
from pyrf.video.strips import contact_sheet
from pyrf.worlds.world import Frames, World

EVAL_STRENGTHS = (0.0, 0.5, 1.0)


class AdapterSettings(Settings):
    """What is trained, and on how much.

    Attributes:
        rank: of the adapter's factors.
        alpha: the change of a weight is (alpha / rank) B A.
        clips: streams of the bundle that are made and changed.
        context_noise: largest noise level of the clean context, which a stream's own errors resemble.
    """

    rank: int = Field(default=8, gt=0, le=256)
    alpha: float = Field(default=8.0, gt=0)
    clips: int = Field(gt=0)
    context_noise: float = Field(default=0.15, ge=0, le=1)


class AdapterStage(NetworkStage):
    """Each denoise call of a changed clip shall lead to the clip.

    Args:
        bundle: whose network is adapted.
        clips: to learn from.
        batch: samples of a micro-batch.
        prompts: of the evaluation.
        measure: what a video shows of the change, 0 for none and 1 for all of it.
    """

    module: AdaptedTextToVideo

    def __init__(
        self,
        settings: AdapterSettings,
        network: AdaptedTextToVideo,
        bundle: Bundle,
        clips: ChangedClips,
        *,
        batch: int,
        world: World,
        prompts: list[str],
        measure: Callable[[Frames], float],
    ) -> None:
        self.settings, self.module, self.clips, self.batch = settings, network, clips, batch
        self.stream, self.world, self.prompts, self.measure = bundle.stream_config, world, prompts, measure
        self.codec: Codec = bundle.codec()
        self.sigmas = few_step_sigmas(self.stream)
        self.forcing = TeacherForcing(self.stream, latent_size(bundle.height, bundle.width, self.codec))

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        generator, forcing = draw.generator, self.forcing
        chosen = below(len(self.clips), (self.batch,), generator)
        clean, noise = self.clips.clean[chosen], self.clips.noise[chosen]
        call = forcing.per_frame(below(len(self.sigmas), (self.batch, forcing.chunks), generator))
        sigmas = self.sigmas[call]
        rows = torch.arange(self.batch, dtype=torch.int64, device="cpu")[:, None]
        columns = torch.arange(clean.shape[1], dtype=torch.int64, device="cpu")
        noisy = add_noise(clean, noise[rows, call, columns], sigmas[..., None, None, None])
        level = self.settings.context_noise * uniform((self.batch, 1, 1, 1, 1), generator)
        context = clean + level * gauss(clean.shape, generator)
        prompt = self.module.prompt([self.clips.captions[i] for i in chosen.tolist()])
        velocity = forcing.forward(self.module, context, noisy, TIMESTEPS * sigmas, prompt)
        return ode_regression_loss(velocity, noisy, sigmas, clean).mean(), {}

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        student = Student(self.module.dit, self.module.encode, self.codec, self.stream)
        numbers: dict[str, Any] = {}
        rows = []
        self.module.eval()
        for strength in EVAL_STRENGTHS:
            self.module.set_strength(strength)
            videos = make_videos(student, self.world, self.prompts, range(len(self.prompts)), 2.0)
            numbers[f"changed_at_{strength:g}"] = sum(map(self.measure, videos)) / len(videos)
            rows.append((f"{self.prompts[0]}, strength {strength:g}", videos[0]))
        self.module.set_strength(1.0)
        contact_sheet(rows, folder / f"{step}.png")
        return numbers
