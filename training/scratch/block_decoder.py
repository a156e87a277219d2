"""The decoder of a codec of blocks, trained on what the student makes of clips in place of their latents.

The student's last denoise call is given the true clip with the noise of its level, so its prediction has the
student's own errors and is still a picture of the clip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pyrf.config import StreamConfig
from pyrf.loop.noise import below, gauss
from pyrf.loop.schedule import TIMESTEPS, add_noise
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT, TAEHV
from pyrf.settings import Settings
from pyrf.training.runner.stage import Draw, Stage
from pyrf.training.scratch.block_codec import evaluate
from pyrf.training.scratch.causal import CausalForcing
from pyrf.training.scratch.clips import to_tensor
from pyrf.training.scratch.codec_files import save_codec
from pyrf.training.scratch.latents import LatentScenes
from pyrf.training.scratch.windows import FRAMES, rich_window, texture_gap, window_loss
from pyrf.training.stages.networks import TextToVideo
from pyrf.training.stages.ode import few_step_sigmas


class BlockDecoderSettings(Settings):
    """What the decoder learns from.

    Attributes:
        own: share of the samples that are the student's; the others are the clips' latents.
        seam_weight: as of the codec's stage.
        texture_weight: of the difference in how much detail each place has, see `texture_gap`.
    """

    own: float = Field(default=0.7, ge=0, le=1)
    seam_weight: float = Field(default=0.5, ge=0)
    texture_weight: float = Field(default=2.0, ge=0)
    eval_clips: int = Field(default=24, gt=0)


class BlockDecoderStage(Stage[TAEHV]):
    """The decoder learns; latents keep their meaning.

    Args:
        network: of the codec to go on from.
        student: that streams with `stream`.
        scenes: encoded with the codec.
    """

    def __init__(
        self,
        settings: BlockDecoderSettings,
        network: TAEHV,
        student: TextToVideo,
        scenes: LatentScenes,
        stream: StreamConfig,
        batch: int,
    ) -> None:
        self.settings, self.scenes, self.batch = settings, scenes, batch
        self.student = student.eval().requires_grad_(False)
        self.forcing = CausalForcing(scenes, stream, batch, context_noise=0.0)
        self.sigma = few_step_sigmas(stream)[-1]
        self.module: TAEHV = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module.encoder.requires_grad_(False)
        self.module.decoder.requires_grad_(True)

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        chosen = below(len(self.scenes), (self.batch,), draw.generator).tolist()
        latents = self.scenes.near[chosen].float()
        if draw.rng.random() < self.settings.own:
            captions = [self.scenes.caption(index, draw.rng) for index in chosen]
            latents = self.predicted(latents, captions, draw.generator)
        parts, videos, weights = [], [], []
        for index, clip in zip(chosen, latents):
            chunk = draw.rng.randrange(self.forcing.chunks)
            scene, first = self.scenes.frames_of(index, chunk * self.forcing.chunk_frames)
            video = to_tensor([scene.render(first, FRAMES)])[0]
            window = rich_window(scene, first, video, draw.rng)
            parts.append(clip.unflatten(0, (self.forcing.chunks, -1))[chunk][..., *window.cells])
            videos.append(video[..., *window.pixels])
            weights.append(window.weight)
        # half of the steps decode from the middle, with no memory, as a stream's first chunk does
        skip = draw.step % 2
        kept = slice(FRAMES_PER_LATENT * skip, None)
        decoded = self.module.decode(torch.stack(parts)[:, skip:])
        video, weight = torch.stack(videos)[:, kept], torch.stack(weights)[:, kept]
        loss, scalars = window_loss(decoded, video, weight, self.settings.seam_weight)
        gap, texture = texture_gap(decoded, video, weight)
        return loss + self.settings.texture_weight * gap, {**scalars, "texture": texture}

    @torch.no_grad()
    def predicted(self, clean: Tensor, captions: list[str], generator: torch.Generator) -> Tensor:
        """What the student's last denoise call makes of clips [B, F, C, h, w], from their clean past."""
        sigmas = self.sigma.expand(clean.shape[:2])
        noisy = add_noise(clean, gauss(clean.shape, generator), self.sigma)
        prompt = self.student.prompt(captions)
        velocity = self.forcing.forward(self.student, clean, noisy, TIMESTEPS * sigmas, prompt)
        return noisy - self.sigma * velocity

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        return evaluate(
            self.module, self.scenes.world, self.settings.eval_clips, folder / f"decoder_{step}.png"
        )

    def export(self, folder: Path) -> None:
        save_codec(self.module, folder)
