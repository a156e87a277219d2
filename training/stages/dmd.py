"""The student by distribution matching on its own streams, DMD or, with a reward, Re-DMD.

Rollouts run through the cache, evictions and sink of inference. The bidirectional teacher and a
critic, which starts from the teacher, score windows of a few chunks anywhere in the stream. One step
in `1 + critic_steps` updates the student, the others the critic.

In a share of the steps the prompt turns where the window begins. Teacher and critic know the new prompt
alone, so the student learns to follow it at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pyrf.config import LatentSize, StreamConfig
from pyrf.evaluation.scores.settings import ScoreSettings
from pyrf.loop.noise import gauss
from pyrf.loop.schedule import TIMESTEPS
from pyrf.models.codecs.codec import Codec
from pyrf.models.dit.model import PromptCache
from pyrf.models.dit.rollout import ModelRollout
from pyrf.settings import Settings
from pyrf.training.objectives.critic import critic_loss
from pyrf.training.objectives.dmd import advantage_weights, dmd_loss, draw_timesteps, reward_weights
from pyrf.training.objectives.flow_matching import interpolate
from pyrf.training.runner.stage import Draw, Stage
from pyrf.training.stages.data import Data
from pyrf.training.stages.networks import TextToVideo
from pyrf.training.stages.reward import Reward


class DmdSettings(Settings):
    """How the student is compared with the teacher.

    Attributes:
        window_chunks: chunks that teacher and critic see, the last ones of a rollout; the gradient flows
            through these only.
        chunks: longest rollout; its length is drawn from window_chunks to this.
        critic_steps: updates of the critic for one of the student.
        turns: share of the steps in which the prompt turns after at least one chunk.
        reward: weighs the rollouts; without one every weight is 1, which is DMD.
        inverse_beta: 1 / b of Re-DMD's weight exp(reward / b).
        weighting: "advantage" compares rollouts of one caption with each other, in place of exp, see
            `objectives/dmd.py`; then a micro-batch of the student's has one caption.
    """

    window_chunks: int = Field(default=3, gt=0)
    chunks: int = 7
    critic_steps: int = Field(default=5, ge=1)
    guidance_scale: float = 3.0
    turns: float = Field(default=0.0, ge=0, le=1)
    reward: ScoreSettings | None = None
    inverse_beta: float = Field(default=2.0, ge=0)
    weighting: Literal["exp", "advantage"] = "exp"
    eval_prompts: int = Field(default=48, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.chunks < self.window_chunks:
            raise ValueError(
                f"chunks must be at least window_chunks ({self.window_chunks}), got {self.chunks}"
            )
        if self.turns and self.chunks == self.window_chunks:
            raise ValueError(
                f"turns needs a chunk before the window: raise chunks above {self.window_chunks}"
            )
        return self


class StudentAndCritic(nn.Module):
    """What is trained in turn; the student is what is evaluated and left behind."""

    def __init__(self, student: TextToVideo, critic: TextToVideo) -> None:
        super().__init__()
        self.student, self.critic = student, critic


class DmdStage(Stage[StudentAndCritic]):
    """DMD, or with a reward Re-DMD.

    Raises:
        ValueError: when rollouts are to be compared with each other, and a micro-batch has only one.
    """

    def __init__(
        self,
        settings: DmdSettings,
        *,
        teacher: TextToVideo,
        critic: TextToVideo,
        student: TextToVideo,
        data: Data,
        codec: Codec,
        stream: StreamConfig,
        batch: int,
        reward: Reward | None = None,
    ) -> None:
        if settings.weighting == "advantage" and batch < 2:
            raise ValueError(
                f"weighting: advantage compares the rollouts of a micro-batch; raise batch to 2, got {batch}"
            )
        self.settings, self.data, self.codec = settings, data, codec
        self.stream, self.batch, self.reward = stream, batch, reward
        self.teacher = teacher.eval().requires_grad_(False)
        self.module = StudentAndCritic(student, critic)

    def hidden_parameters(self) -> Iterable[nn.Parameter]:
        return [*self.module.student.hidden_parameters(), *self.module.critic.hidden_parameters()]

    def is_averaged(self, name: str) -> bool:
        return name.startswith("student.")

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        return (self.critic_loss if draw.step % (1 + self.settings.critic_steps) else self.student_loss)(draw)

    def _captions(self, draw: Draw) -> tuple[list[str] | None, list[str]]:
        """Captions of the chunks before the window, where they have others, and of the window."""
        if self.settings.turns and draw.shared.random() < self.settings.turns:
            return self.data.turns(draw)
        return None, self.data.captions(draw)

    def critic_loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """The critic's, on rollouts of the student."""
        critic, (x0, captions) = self.module.critic, self.watched(draw)
        prompt = critic.prompt(captions)
        loss = critic_loss(lambda x, t: critic.dit(x, t, prompt), x0, self.stream.shift, draw.generator)
        return loss, {"critic_loss": float(loss.detach())}

    @torch.no_grad()
    def watched(self, draw: Draw) -> tuple[Tensor, list[str]]:
        """What the critic sees: rollouts of the student, see `rollout`, and their captions."""
        first, captions = self._captions(draw)
        return self.rollout(self.module.student, captions, draw, first), captions

    def student_loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """The student's, on its own rollouts."""
        first, captions = self._captions(draw)
        if self.settings.weighting == "advantage":
            first = None if first is None else first[:1] * len(first)
            captions = captions[:1] * len(captions)
        x0 = self.rollout(self.module.student, captions, draw, first)
        real, fake = self.predictions(self.module.critic, x0.detach(), captions, draw.generator)
        metrics = {"dmd_gap": float((fake - real).abs().mean())}
        if self.reward is None:
            return dmd_loss(x0, real, fake), metrics
        with torch.no_grad():
            scores = self.reward(self.codec.decoder().decode(x0), captions).to(x0.device)
        judged = torch.isfinite(scores)
        metrics["skipped"] = float((~judged).sum())
        if judged.any():
            metrics["reward"] = float(scores[judged].mean())
            metrics["reward_std"] = float(scores[judged].std(correction=0))
        weigh = advantage_weights if self.settings.weighting == "advantage" else reward_weights
        return dmd_loss(x0, real, fake, weigh(scores, self.settings.inverse_beta)), metrics

    def rollout(
        self, student: TextToVideo, captions: list[str], draw: Draw, first: list[str] | None = None
    ) -> Tensor:
        """The last chunks, `window_chunks` of them, of a stream of random length: [B, F, C, h, w].

        `first` are the captions of the chunks before these, where they have others. All micro-batches of a
        step have the same length and the same exit step.
        """
        window, device = self.settings.window_chunks, student.dit.device
        shape = (self.batch, self.stream.chunk_frames, *self.data.latent_shape)
        count = draw.shared.randint(window if first is None else window + 1, self.settings.chunks)
        exit_step = draw.shared.randrange(len(self.stream.denoising_steps))

        def noise() -> Tensor:
            return gauss(shape, draw.generator).to(device)

        size = LatentSize(*shape[-2:])
        prompt = student.prompt(captions)
        rollout = ModelRollout(student.dit, self.stream, prompt, size)
        if first is not None:
            rollout.prompt = student.prompt(first)
        chunks = []
        for i in range(count):
            if i == count - window:
                rollout.prompt = prompt
            with torch.set_grad_enabled(torch.is_grad_enabled() and i >= count - window):
                chunks.append(rollout.next_chunk(noise, exit_step))
        return torch.cat(chunks[-window:], dim=1)

    @torch.no_grad()
    def predictions(
        self, critic: TextToVideo, x0: Tensor, captions: list[str], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """x0-predictions of teacher, with guidance, and critic at a random noise level."""
        timesteps = draw_timesteps(len(x0), self.stream.shift, generator).to(x0.device)
        sigmas = (timesteps / TIMESTEPS)[:, None].expand(-1, x0.shape[1])
        x_t = interpolate(
            x0,
            gauss(x0.shape, generator).to(x0.device),
            sigmas,
        )

        def predict(network: TextToVideo, x: Tensor, t: Tensor, prompt: PromptCache) -> Tensor:
            # Not `to_x0`, whose float64 is for what a stream feeds back: this is a target, seen once.
            return x - (t / TIMESTEPS).view(-1, 1, 1, 1, 1) * network.dit(x, t, prompt)

        both = self.teacher.prompt(captions + [""] * len(captions))
        real, real_empty = predict(self.teacher, torch.cat([x_t, x_t]), timesteps.repeat(2), both).chunk(2)
        fake = predict(critic, x_t, timesteps, critic.prompt(captions))
        return real + self.settings.guidance_scale * (real - real_empty), fake

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        count, sheet = self.settings.eval_prompts, folder / f"{step}.png"
        return self.data.score(self.module.student, self.codec, self.stream, count, sheet)

    def export(self, folder: Path) -> None:
        self.module.student.save(folder)
