"""The student by distribution matching on its own streams, DMD or, with a reward, Re-DMD.

Rollouts run through the cache, evictions and sink of inference. The bidirectional teacher and a
critic, which starts from the teacher, score windows of three chunks anywhere in the stream. One step
in `1 + critic_steps` updates the student, the others the critic.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pyrf.config import StreamConfig
from pyrf.models.dit import PromptCache
from pyrf.models.taehv import TAEHVCodec
from pyrf.sampler import TrainingRollout
from pyrf.training import parallel
from pyrf.training.latents import LatentScenes
from pyrf.training.models import NetworkSettings, TextToVideo, is_hidden, save_network
from pyrf.training.objectives.critic import critic_loss
from pyrf.training.objectives.dmd import dmd_loss, draw_timesteps, reward_weights
from pyrf.training.objectives.flow_matching import interpolate
from pyrf.training.rewards.settings import Judge, RewardSettings
from pyrf.training.streams import Student, score_streams
from pyrf.training.trainer import Draw, Stage

WINDOW_CHUNKS = 3


class DmdSettings(BaseModel):
    """How the student is compared with the teacher.

    Attributes:
        chunks: longest rollout; its length is drawn from WINDOW_CHUNKS to this.
        critic_steps: updates of the critic for one of the student.
        reward: judges the rollouts; without one every weight is 1, which is DMD.
        inverse_beta: 1 / b of Re-DMD's weight exp(reward / b).
    """

    model_config = ConfigDict(extra="forbid")

    chunks: int = Field(default=7, ge=WINDOW_CHUNKS)
    critic_steps: int = Field(default=5, ge=1)
    guidance_scale: float = 3.0
    reward: RewardSettings | None = None
    inverse_beta: float = Field(default=2.0, ge=0)
    eval_prompts: int = 48


class DmdStage(Stage):
    def __init__(
        self,
        settings: DmdSettings,
        teacher: TextToVideo,
        critic: TextToVideo,
        student: TextToVideo,
        network_settings: NetworkSettings,
        scenes: LatentScenes,
        codec: TAEHVCodec,
        stream: StreamConfig,
        batch: int,
        judge: Judge | None = None,
    ) -> None:
        self.settings, self.network_settings, self.codec = settings, network_settings, codec
        self.scenes, self.stream, self.batch, self.judge = scenes, stream, batch, judge
        self.teacher = teacher.eval().requires_grad_(False)
        self.module: nn.ModuleDict = nn.ModuleDict({"student": student, "critic": critic})

    def is_hidden(self, name: str) -> bool:
        return is_hidden(name)

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        step, generator, rng = draw.step, draw.generator, draw.rng
        student, critic = self.module["student"], self.module["critic"]
        assert isinstance(student, TextToVideo)
        assert isinstance(critic, TextToVideo)
        captions = [self.scenes.caption(rng.randrange(len(self.scenes)), rng) for _ in range(self.batch)]
        if step % (1 + self.settings.critic_steps):
            with torch.no_grad():
                x0 = self.rollout(student, captions, generator, rng)
            prompt = critic.prompt(captions)
            loss = critic_loss(lambda x, t: critic.dit(x, t, prompt), x0, self.stream.shift, generator)
            return loss, {"critic_loss": float(loss.detach())}
        x0 = self.rollout(student, captions, generator, rng)
        real, fake = self.predictions(critic, x0.detach(), captions, generator)
        metrics = {"dmd_gap": float((fake - real).abs().mean())}
        if self.judge is None:
            return dmd_loss(x0, real, fake), metrics
        with torch.no_grad():
            scores = self.judge(self.codec.decoder().decode(x0), captions)
        judged = torch.isfinite(scores)
        metrics["skipped"] = float((~judged).sum())
        if judged.any():
            metrics["reward"] = float(scores[judged].mean())
        return dmd_loss(x0, real, fake, reward_weights(scores, self.settings.inverse_beta)), metrics

    def rollout(
        self, student: TextToVideo, captions: list[str], generator: torch.Generator, rng: random.Random
    ) -> Tensor:
        """The last WINDOW_CHUNKS chunks of a stream of random length: [B, 9, C, h, w].

        All processes draw the same length and the same exit step.
        """
        shape = (self.batch, self.stream.chunk_frames, *self.scenes.near.shape[2:])
        count = int(parallel.from_first(rng.randint(WINDOW_CHUNKS, self.settings.chunks)))
        exit_step = int(parallel.from_first(rng.randrange(len(self.stream.denoising_steps))))
        rollout = TrainingRollout(
            student.dit, self.stream, student.prompt(captions), height=shape[-2], width=shape[-1]
        )
        chunks = []
        for i in range(count):
            with torch.set_grad_enabled(torch.is_grad_enabled() and i >= count - WINDOW_CHUNKS):
                chunks.append(rollout.next_chunk(lambda: torch.randn(shape, generator=generator), exit_step))
        return torch.cat(chunks[-WINDOW_CHUNKS:], dim=1)

    @torch.no_grad()
    def predictions(
        self, critic: TextToVideo, x0: Tensor, captions: list[str], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """x0-predictions of teacher, with guidance, and critic at a random noise level."""
        timesteps = draw_timesteps(len(x0), self.stream.shift, generator)
        sigmas = (timesteps / 1000)[:, None].expand(-1, x0.shape[1])
        x_t = interpolate(x0, torch.randn(x0.shape, generator=generator), sigmas)

        def predict(network: TextToVideo, x: Tensor, t: Tensor, prompt: PromptCache) -> Tensor:
            return x - (t / 1000).view(-1, 1, 1, 1, 1) * network.dit(x, t, prompt)

        both = self.teacher.prompt(captions + [""] * len(captions))
        real, real_empty = predict(self.teacher, torch.cat([x_t, x_t]), timesteps.repeat(2), both).chunk(2)
        fake = predict(critic, x_t, timesteps, critic.prompt(captions))
        return real + self.settings.guidance_scale * (real - real_empty), fake

    def evaluate(self, module: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        assert isinstance(module, nn.ModuleDict)
        student = module["student"]
        assert isinstance(student, TextToVideo)
        parts = Student(student.dit, student.text, self.codec, self.stream)
        count, sheet = self.settings.eval_prompts, folder / f"{step}.png"
        return score_streams(parts, self.scenes.world, count, sheet)

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, nn.ModuleDict)
        student = module["student"]
        assert isinstance(student, TextToVideo)
        save_network(student, self.network_settings, folder)
