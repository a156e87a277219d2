"""A codec of blocks: 16 pixels a side and 4 frames for each latent, from a linear codec on.

From random weights such a codec learns far too slowly on a CPU.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pyrf.evaluation.report.pixels import gradient_energy
from pyrf.loop.noise import gauss, uniform
from pyrf.models.codecs.codec import to_uint8
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT, TAEHV, TAEHVConfig
from pyrf.settings import Settings
from pyrf.training.runner.stage import Draw, Stage
from pyrf.training.scratch.clips import FIRST_SEED, HELD_OUT_SEED, random_clip
from pyrf.training.scratch.codec_files import save_codec
from pyrf.training.scratch.linear_codec import PATCH, load_or_fit, write
from pyrf.training.scratch.windows import FRAMES, rich_window, window_loss
from pyrf.video.strips import contact_sheet
from pyrf.worlds.world import Frames, World, WorldPrompt

LINEAR = "linear.safetensors"
"""The file of the linear codec, in the stage's folder."""


class BlockCodecSettings(Settings):
    """What the codec is and what it is trained on.

    Attributes:
        linear_clips: that the linear codec is fitted to.
        noise: largest deviation of the noise on latents, which a network's own errors resemble.
        seam_weight: of steps of the error across the borders of cells: on a smooth sky the eye sees those
            before all else.
    """

    latent_channels: int = Field(gt=0)
    encoder_width: int = Field(gt=0)
    decoder_widths: tuple[int, int, int, int]
    blocks: int = Field(gt=0)
    linear_clips: int = Field(default=300, gt=0)
    noise: float = Field(default=0.08, ge=0)
    seam_weight: float = Field(default=0.5, ge=0)
    eval_clips: int = Field(default=24, gt=0)

    @property
    def config(self) -> TAEHVConfig:
        return TAEHVConfig(
            latent_channels=self.latent_channels,
            encoder_width=self.encoder_width,
            decoder_widths=self.decoder_widths,
            blocks=self.blocks,
            patch_size=PATCH,
            upscale=(False, False, False),
        )


class BlockCodecStage(Stage[TAEHV]):
    """The decoder learns; the encoder stays linear, so latents keep their meaning for the other stages.

    Args:
        folder: of the stage, where the linear codec is kept.
    """

    def __init__(self, settings: BlockCodecSettings, world: World, batch: int, folder: Path) -> None:
        self.settings, self.world, self.batch = settings, world, batch
        clips, channels = settings.linear_clips, settings.latent_channels
        self.linear = load_or_fit(world, clips, FIRST_SEED, channels, folder / LINEAR)
        self.module: TAEHV = TAEHV(settings.config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        write(self.linear, self.module)
        self.module.encoder.requires_grad_(False)

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        parts = [self._window(draw.rng) for _ in range(self.batch)]
        video, weight = (torch.stack(tensors) for tensors in zip(*parts))
        latents = self.linear.encode(video)
        # half of the steps decode from the middle, with no memory, as a stream's first chunk does
        skip = draw.step % 2
        latents, kept = latents[:, skip:], slice(FRAMES_PER_LATENT * skip, None)
        level = self.settings.noise * uniform((len(latents), 1, 1, 1, 1), draw.generator)
        noise = gauss(latents.shape, draw.generator)
        decoded = self.module.decode(latents + level * noise)
        return window_loss(decoded, video[:, kept], weight[:, kept], self.settings.seam_weight)

    def _window(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """A window of a new clip, [FRAMES, 3, *CROP] in 0..1, and the weight of its pixels."""
        scene, first, frames = random_clip(self.world, rng.randrange(FIRST_SEED, 2 * FIRST_SEED), FRAMES)
        video = frames.float() / 255
        window = rich_window(scene, first, video, rng)
        video, weight = video[..., *window.pixels], window.weight
        return (video.flip(-1), weight.flip(-1)) if rng.random() < 0.5 else (video, weight)

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        return evaluate(self.module, self.world, self.settings.eval_clips, folder / f"codec_{step}.png")

    def export(self, folder: Path) -> None:
        save_codec(self.module, folder)


def evaluate(network: TAEHV, world: World, clips: int, sheet: Path) -> dict[str, float]:
    """The scores of held-out clips; a sheet shows some of them beside their reconstructions."""
    scores, rows = score(network, world, clips, frames=24)
    contact_sheet(rows, sheet, columns=3)
    return scores


@torch.no_grad()
def score(
    network: TAEHV, world: World, clips: int, frames: int
) -> tuple[dict[str, float], list[tuple[str, Frames]]]:
    """PSNR and sharpness of held-out clips, what the world says of their reconstructions, and pictures."""
    psnr, at_seams = [], []
    sharp, sharp_true = 0.0, 0.0
    right: list[dict[str, bool]] = []
    rows: list[tuple[str, Frames]] = []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + clips):
        scene, _, true = random_clip(world, seed, frames)
        video = true.float() / 255
        decoded = network.decode(network.encode(video[None]))[0].clamp(0, 1)
        error = (decoded - video).square()
        psnr.append(-10 * float(torch.log10(error.mean())))
        at_seams.append(float(_seams(decoded - video)))
        shown = to_uint8(decoded).permute(0, 2, 3, 1).contiguous().numpy()
        real = true.permute(0, 2, 3, 1).numpy()
        sharp, sharp_true = sharp + gradient_energy(shown), sharp_true + gradient_energy(real)
        right.append(world.judge(shown, WorldPrompt("", scene.facts)))
        if len(rows) < 16:
            rows += [(f"{psnr[-1]:.1f} dB", real), ("decoded", shown)]
    scores = {
        "psnr": float(np.mean(psnr)),
        "psnr_worst": min(psnr),
        "seams": float(np.mean(at_seams)),
        "sharpness": sharp / sharp_true,
    }
    names = {name for verdicts in right for name in verdicts}
    return scores | {
        name: float(np.mean([verdicts[name] for verdicts in right if name in verdicts]))
        for name in sorted(names)
    }, rows


def _seams(error: Tensor) -> Tensor:
    """Steps of the error across the borders of cells, over its steps elsewhere; 1 without tiles."""
    step = (error[..., 1:] - error[..., :-1]).abs()
    across = step[..., PATCH - 1 :: PATCH].mean()
    return across / step.mean()
