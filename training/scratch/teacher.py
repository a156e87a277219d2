"""Text encoder and bidirectional teacher by flow matching, one chunk first, then three."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pyrf.evaluation.held_out import SHOWN, grade
from pyrf.loop.noise import below, gauss
from pyrf.loop.schedule import TIMESTEPS, warp
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.settings import Settings
from pyrf.training.objectives.flow_matching import flow_matching_loss, shifted_sigmas, subject_weights
from pyrf.training.runner.stage import Draw
from pyrf.training.scratch.latents import NEAR, LatentScenes
from pyrf.training.stages.networks import NetworkStage, TextToVideo
from pyrf.video.strips import contact_sheet
from pyrf.worlds.world import Frames, World, WorldPrompt


class TeacherSettings(Settings):
    """What the teacher sees.

    Attributes:
        frames: latent frames of a sample.
        drop: chance that a caption is left out, for classifier-free guidance.
        subject_weight: of a cell with a subject in it, against one without, see `subject_weights`.
        motion_weight: of what changes from one latent frame to the next, see `flow_matching_loss`.
    """

    frames: int = Field(gt=0, le=NEAR)
    shift: float = Field(default=3.0, gt=0)
    drop: float = Field(default=0.1, ge=0, le=1)
    subject_weight: float = Field(default=1.0, gt=0)
    motion_weight: float = Field(default=0.0, ge=0)
    guidance_scale: float = 3.0
    sampling_steps: int = Field(default=16, gt=0)
    eval_prompts: int = Field(default=48, gt=0)


class TeacherStage(NetworkStage):
    def __init__(
        self,
        settings: TeacherSettings,
        network: TextToVideo,
        scenes: LatentScenes,
        codec: TAEHVCodec,
        batch: int,
    ) -> None:
        self.settings, self.scenes, self.codec, self.batch = settings, scenes, codec, batch
        self.module = network

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        generator = draw.generator
        x0, cells, captions = self.draw(generator, draw.rng)
        levels = shifted_sigmas(self.batch, 1, self.settings.shift, generator).to(x0.device)
        sigmas = levels.expand(-1, x0.shape[1])
        prompt = self.module.prompt(captions)
        noise = gauss(x0.shape, generator).to(x0.device)
        weight = subject_weights(cells, self.settings.subject_weight, sigmas)
        error = flow_matching_loss(
            lambda x, t: self.module.dit(x, t[:, 0], prompt),
            x0,
            sigmas,
            noise,
            weight,
            motion_weight=self.settings.motion_weight,
        )
        return error.mean(), {}

    def draw(self, generator: torch.Generator, rng: random.Random) -> tuple[Tensor, Tensor, list[str]]:
        """A batch of clean latents [B, frames, C, h, w], where subjects are, and captions, some left out."""
        frames = self.settings.frames
        index = below(len(self.scenes), (self.batch,), generator).tolist()
        near, far, _ = self.scenes.subjects
        device = self.module.dit.device
        clips, cells = [], []
        for i in index:
            # a window of the first stretch; a single chunk may be from the later one as well
            is_far = frames < NEAR and rng.random() < 0.4
            stretch, subjects = (self.scenes.far, far) if is_far else (self.scenes.near, near)
            start = rng.randrange(stretch.shape[1] - frames + 1)
            clips.append(stretch[i, start : start + frames].float())
            cells.append(subjects[i, start : start + frames])
        captions = ["" if rng.random() < self.settings.drop else self.scenes.caption(i, rng) for i in index]
        return torch.stack(clips).to(device), torch.stack(cells).to(device), captions

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        prompts, latents = self.sample_held_out()
        return score(self.scenes.world, latents, prompts, self.codec, folder / f"{step}.png")

    def sample_held_out(self) -> tuple[list[WorldPrompt], Tensor]:
        """The prompts of an evaluation and a sample for each, [B, frames, C, h, w]."""
        prompts = self.scenes.world.held_out(self.settings.eval_prompts)
        s = self.settings
        shape = (s.frames, *self.scenes.latent_shape)
        parts = [
            sample(
                self.module,
                [p.text for p in prompts[i : i + 16]],
                shape,
                seed=i,
                steps=s.sampling_steps,
                shift=s.shift,
                guidance_scale=s.guidance_scale,
            )
            for i in range(0, len(prompts), 16)
        ]
        return prompts, torch.cat(parts)


def sample(
    network: TextToVideo,
    captions: list[str],
    shape: tuple[int, int, int, int],
    *,
    seed: int,
    steps: int,
    shift: float,
    guidance_scale: float,
) -> Tensor:
    """Euler steps of a bidirectional network with classifier-free guidance: latents [B, F, C, h, w].

    Args:
        shape: of a sample, [F, C, h, w].
        shift: of the noise levels.
        guidance_scale: 1 is no guidance.
    """
    count = len(captions)
    generator = torch.Generator("cpu").manual_seed(seed)
    x = gauss((count, *shape), generator).to(network.dit.device)
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float32, device="cpu")
    sigmas = warp(u, shift).to(x.device)
    prompt = network.prompt(captions + [""] * count)
    for now, then in itertools.pairwise(sigmas):
        v, v_empty = network.dit(torch.cat([x, x]), (TIMESTEPS * now).expand(2 * count), prompt).chunk(2)
        x = x + (then - now) * (v_empty + guidance_scale * (v - v_empty))
    return x


def decode(latents: Tensor, codec: TAEHVCodec) -> list[Frames]:
    """Latents [B, F, C, h, w] -> a video each, uint8 [4F - 3, H, W, 3]."""
    return [video for part in latents.split(8) for video in codec.decoder().decode(part).cpu().numpy()]


def score(
    world: World, latents: Tensor, prompts: list[WorldPrompt], codec: TAEHVCodec, sheet: Path
) -> dict[str, float]:
    """Judge decoded latents and draw the first of them."""
    videos = decode(latents, codec)
    contact_sheet([(p.text, v) for p, v in zip(prompts, videos)][:SHOWN], sheet)
    return grade(world, videos, prompts)
