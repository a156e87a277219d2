"""Trains the valley's codec: 16 pixels a side and 4 frames for each latent, from a linear codec on.

Run or resume with: python -m pyrf.training.valley.codec --out runs/valley/codec
"""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.loop.noise import gauss, uniform
from pyrf.models.codecs.codec import to_uint8
from pyrf.models.codecs.taehv import FRAMES_PER_LATENT, TAEHV, TAEHVConfig
from pyrf.training.runner.stage import Draw, Stage, TrainSettings
from pyrf.training.runner.trainer import train
from pyrf.training.scratch.clips import edges
from pyrf.training.scratch.codec_files import save_codec
from pyrf.training.valley.clips import FIRST_SEED, HELD_OUT_SEED, balloon_mask, clip
from pyrf.training.valley.linear import PATCH, LinearCodec, load_or_fit, write
from pyrf.video.strips import contact_sheet
from pyrf.worlds.valley.attributes import NAMES
from pyrf.worlds.valley.detector import detect
from pyrf.worlds.valley.world import Valley
from pyrf.worlds.world import Frames

CONFIG = TAEHVConfig(
    latent_channels=24,
    encoder_width=128,
    decoder_widths=(128, 128, 128, 144),
    blocks=2,
    patch_size=PATCH,
    upscale=(False, False, False),
)
LINEAR_CLIPS = 300
"""That the linear codec is fitted to."""
FRAMES = 12
CROP = (128, 160)
"""Rows and columns of the windows that are trained on."""
NOISE = 0.08
"""Largest deviation of the noise on latents, which a network's own errors resemble."""

SEAM_WEIGHT = 0.5
"""Of steps of the error across the borders of cells: on a smooth sky the eye sees those before all else."""


class CodecStage(Stage[TAEHV]):
    """The decoder learns; the encoder stays linear, so latents keep their meaning for the other stages."""

    def __init__(self, world: Valley, batch: int, linear: LinearCodec) -> None:
        self.world, self.batch, self.linear = world, batch, linear
        self.module: TAEHV = TAEHV(CONFIG).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        write(linear, self.module)
        self.module.encoder.requires_grad_(False)

    def loss(self, draw: Draw) -> tuple[Tensor, dict[str, float]]:
        parts = [self._window(draw.rng) for _ in range(self.batch)]
        video, weight = (torch.stack(tensors) for tensors in zip(*parts))
        latents = self.linear.encode(video)
        # half of the steps decode from the middle, with no memory, as a stream's first chunk does
        skip = draw.step % 2
        latents, kept = latents[:, skip:], slice(FRAMES_PER_LATENT * skip, None)
        level = NOISE * uniform((len(latents), 1, 1, 1, 1), draw.generator)
        noise = gauss(latents.shape, draw.generator)
        error = self.module.decode(latents + level * noise) - video[:, kept]
        weight = weight[:, kept]
        loss = (weight * (error.abs() + 8 * error.square())).mean()
        loss = loss + SEAM_WEIGHT * _steps_at_borders(error * (weight > 0))
        mean_square = (error.detach().square() * (weight > 0)).sum() / (weight > 0).sum() / 3
        return loss, {"psnr": -10 * float(torch.log10(mean_square))}

    def _window(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """A window of a new clip, [FRAMES, 3, *CROP] in 0..1, and the weight of its pixels.

        It is the one of three with the most edges and balloons. Where a cell at its rim misses its
        neighbours, it weighs nothing.
        """
        scene, first, frames = clip(self.world, rng.randrange(FIRST_SEED, 2 * FIRST_SEED), FRAMES)
        video = frames.float() / 255
        weight = 1 + 5 * F.max_pool2d(edges(video), 3, 1, 1).clamp(max=0.7)[:, None]
        weight = weight + 2 * balloon_mask(scene, first, FRAMES, *frames.shape[2:])
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
        scores, rows = score(self.module, self.world, clips=24, frames=24)
        contact_sheet(rows, folder / f"codec_{step}.png", columns=3)
        return scores

    def export(self, folder: Path) -> None:
        save_codec(self.module, folder)


@torch.no_grad()
def score(
    network: TAEHV, world: Valley, clips: int, frames: int
) -> tuple[dict[str, float], list[tuple[str, Frames]]]:
    """Mean PSNR of held-out clips, what the detector reads on their reconstructions, and pictures."""
    psnr, at_seams = [], []
    right: list[dict[str, bool]] = []
    rows: list[tuple[str, Frames]] = []
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + clips):
        scene, _, true = clip(world, seed, frames)
        video = true.float() / 255
        decoded = network.decode(network.encode(video[None]))[0].clamp(0, 1)
        error = (decoded - video).square()
        psnr.append(-10 * float(torch.log10(error.mean())))
        at_seams.append(float(_seams(decoded - video)))
        shown = to_uint8(decoded).permute(0, 2, 3, 1).contiguous().numpy()
        seen = detect(shown)
        right.append({name: seen.shows(name, scene.facts) for name in NAMES})
        if len(rows) < 16:
            rows += [(f"{psnr[-1]:.1f} dB", true.permute(0, 2, 3, 1).numpy()), ("decoded", shown)]
    scores = {"psnr": float(np.mean(psnr)), "psnr_worst": min(psnr), "seams": float(np.mean(at_seams))}
    return scores | {name: float(np.mean([r[name] for r in right])) for name in NAMES}, rows


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


def linear_codec(world: Valley, folder: Path) -> LinearCodec:
    """The codec that this stage starts from, made once and kept in its folder."""
    return load_or_fit(world, LINEAR_CLIPS, FIRST_SEED, CONFIG.latent_channels, folder / "linear.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, logs and weights")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1.5e-4, help="of AdamW")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    world = Valley()
    linear = linear_codec(world, arguments.out)
    settings = TrainSettings(
        steps=arguments.steps,
        batch=arguments.batch,
        adam_lr=arguments.lr,
        betas=(0.9, 0.99),
        decay=0.5,
        ema=0.99,
        compile=False,
        log_steps=25,
        eval_minutes=15,
    )
    train(lambda: CodecStage(world, arguments.batch, linear), settings, arguments.out)


if __name__ == "__main__":
    main()
