"""A codec of blocks: 16 pixels a side and 4 frames for each latent, from a linear codec on.

From random weights such a codec learns far too slowly on a CPU.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pyrf.loop.noise import gauss, uniform
from pyrf.models.codecs.codec import to_uint8
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT, TAEHV, TAEHVConfig
from pyrf.settings import Settings
from pyrf.training.runner.stage import Draw, Stage
from pyrf.training.scratch.clips import FIRST_SEED, HELD_OUT_SEED, edges, random_clip, subject_mask
from pyrf.training.scratch.codec_files import save_codec
from pyrf.training.scratch.linear_codec import PATCH, load_or_fit, write
from pyrf.video.strips import contact_sheet
from pyrf.worlds.world import Frames, World, WorldPrompt

FRAMES = 12
CROP = (128, 160)
"""Rows and columns of the windows that are trained on."""
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
        error = self.module.decode(latents + level * noise) - video[:, kept]
        weight = weight[:, kept]
        loss = (weight * (error.abs() + 8 * error.square())).mean()
        loss = loss + self.settings.seam_weight * _steps_at_borders(error * (weight > 0))
        mean_square = (error.detach().square() * (weight > 0)).sum() / (weight > 0).sum() / 3
        return loss, {"psnr": -10 * float(torch.log10(mean_square))}

    def _window(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """A window of a new clip, [FRAMES, 3, *CROP] in 0..1, and the weight of its pixels.

        It is the one of three with the most edges and subjects. Where a cell at its rim misses its
        neighbours, it weighs nothing.
        """
        scene, first, frames = random_clip(self.world, rng.randrange(FIRST_SEED, 2 * FIRST_SEED), FRAMES)
        video = frames.float() / 255
        weight = 1 + 5 * F.max_pool2d(edges(video), 3, 1, 1).clamp(max=0.7)[:, None]
        weight = weight + 2 * subject_mask(scene, first, FRAMES, *frames.shape[2:])
        height, width = frames.shape[2] // PATCH, frames.shape[3] // PATCH
        rows, columns = CROP[0] // PATCH, CROP[1] // PATCH
        richness = F.avg_pool2d(weight.mean((0, 1))[None, None], PATCH)[0, 0]
        tried = [(rng.randint(0, height - rows), rng.randint(0, width - columns)) for _ in range(3)]
        row, column = max(tried, key=lambda at: float(richness[at[0] :, at[1] :][:rows, :columns].sum()))
        if row > 0:
            weight[:, :, PATCH * row : PATCH * (row + 1)] = 0
        if row < height - rows:
            weight[:, :, PATCH * (row + rows - 1) : PATCH * (row + rows)] = 0
        if column > 0:
            weight[..., PATCH * column : PATCH * (column + 1)] = 0
        if column < width - columns:
            weight[..., PATCH * (column + columns - 1) : PATCH * (column + columns)] = 0
        window = (
            ...,
            slice(PATCH * row, PATCH * row + CROP[0]),
            slice(PATCH * column, PATCH * column + CROP[1]),
        )
        video, weight = video[window], weight[window]
        return (video.flip(-1), weight.flip(-1)) if rng.random() < 0.5 else (video, weight)

    def evaluate(self, folder: Path, step: int) -> dict[str, Any]:
        scores, rows = score(self.module, self.world, self.settings.eval_clips, frames=24)
        contact_sheet(rows, folder / f"codec_{step}.png", columns=3)
        return scores

    def export(self, folder: Path) -> None:
        save_codec(self.module, folder)


@torch.no_grad()
def score(
    network: TAEHV, world: World, clips: int, frames: int
) -> tuple[dict[str, float], list[tuple[str, Frames]]]:
    """Mean PSNR of held-out clips, what the world says of their reconstructions, and pictures."""
    psnr, at_seams = [], []
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
        right.append(world.judge(shown, WorldPrompt("", scene.facts)))
        if len(rows) < 16:
            rows += [(f"{psnr[-1]:.1f} dB", true.permute(0, 2, 3, 1).numpy()), ("decoded", shown)]
    scores = {"psnr": float(np.mean(psnr)), "psnr_worst": min(psnr), "seams": float(np.mean(at_seams))}
    names = {name for verdicts in right for name in verdicts}
    return scores | {
        name: float(np.mean([verdicts[name] for verdicts in right if name in verdicts]))
        for name in sorted(names)
    }, rows


def _steps_at_borders(error: Tensor) -> Tensor:
    """Mean size of the error's steps across the borders of cells; error [..., H, W]."""
    across = error[..., PATCH::PATCH] - error[..., PATCH - 1 : -1 : PATCH]
    down = error[..., PATCH::PATCH, :] - error[..., PATCH - 1 : -1 : PATCH, :]
    return across.abs().mean() + down.abs().mean()


def _seams(error: Tensor) -> Tensor:
    """Steps of the error across the borders of cells, over its steps elsewhere; 1 without tiles."""
    step = (error[..., 1:] - error[..., :-1]).abs()
    across = step[..., PATCH - 1 :: PATCH].mean()
    return across / step.mean()
