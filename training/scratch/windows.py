"""Windows of clips that a codec of blocks learns from, and what an error in them costs."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.training.scratch.clips import edges, subject_mask
from pyrf.training.scratch.linear_codec import PATCH
from pyrf.worlds.world import Scene

FRAMES = 12
"""Of a clip."""
CROP = (128, 160)
"""Rows and columns of a window, pixels."""
DETAILS = (3, 7)
"""Sides of the blurs whose loss is a window's texture, pixels."""
BOX = 8
"""Side of the places whose textures are compared, pixels."""
LEAST_POWER = 1e-5
"""Added to a place's power, so that a flat one has a gradient; the root of it is 0.8 of 255 levels."""


class Window(NamedTuple):
    """A part of a clip.

    Attributes:
        cells, pixels: rows and columns of it in latents and in frames.
        weight: of its pixels, [FRAMES, 1, *CROP]. Where a cell at its rim misses its neighbours it is 0.
    """

    cells: tuple[slice, slice]
    pixels: tuple[slice, slice]
    weight: Tensor


def rich_window(scene: Scene, first: int, video: Tensor, rng: random.Random) -> Window:
    """The one of three random windows with the most edges and subjects.

    Args:
        first: frame of the scene at which the clip begins.
        video: the clip, [FRAMES, 3, H, W] in 0..1.
    """
    weight = 1 + 5 * F.max_pool2d(edges(video), 3, 1, 1).clamp(max=0.7)[:, None]
    weight = weight + 2 * subject_mask(scene, first, FRAMES, *video.shape[2:])
    height, width = video.shape[2] // PATCH, video.shape[3] // PATCH
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
    cells = slice(row, row + rows), slice(column, column + columns)
    pixels = (
        slice(PATCH * row, PATCH * row + CROP[0]),
        slice(PATCH * column, PATCH * column + CROP[1]),
    )
    return Window(cells, pixels, weight[..., *pixels])


def window_loss(
    decoded: Tensor, video: Tensor, weight: Tensor, seam_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """What decoded windows [B, T, 3, *CROP] cost against the true ones, and their PSNR in dB.

    Args:
        weight: of pixels, [B, T, 1, *CROP].
        seam_weight: of steps of the error across the borders of cells.
    """
    error = decoded - video
    loss = (weight * (error.abs() + 8 * error.square())).mean()
    loss = loss + seam_weight * _steps_at_borders(error * (weight > 0))
    mean_square = (error.detach().square() * (weight > 0)).sum() / (weight > 0).sum() / 3
    return loss, {"psnr": -10 * float(torch.log10(mean_square))}


def texture_gap(decoded: Tensor, video: Tensor, weight: Tensor) -> tuple[Tensor, float]:
    """How far decoded windows are from the true ones in how much detail each place has, wherever in it.

    Errors alone leave a place blurred whose details cannot be known to the pixel. Details are what a blur
    takes away, of two sizes; their root mean squares are compared in boxes of `BOX` pixels, which overlap.

    Args:
        decoded, video: [B, T, 3, *CROP] in 0..1.
        weight: of pixels, [B, T, 1, *CROP]; those of weight 0 do not count.

    Returns:
        The mean difference, and the decoded windows' power of the smaller details over the true ones'.
    """
    kept = (weight.flatten(0, 1) > 0).to(weight.dtype)

    def details(frames: Tensor, size: int) -> Tensor:
        frames = frames.flatten(0, 1)
        fine = frames - F.avg_pool2d(frames, size, 1, size // 2, count_include_pad=False)
        power = F.avg_pool2d(kept * fine.square().sum(1, keepdim=True), BOX, BOX // 2)
        return (power + LEAST_POWER).sqrt()

    pairs = [(details(decoded, size), details(video, size)) for size in DETAILS]
    own, true = pairs[0]
    gap = torch.stack([(a - b).abs().mean() for a, b in pairs]).sum()
    return gap, float(own.detach().square().mean() / true.square().mean())


def _steps_at_borders(error: Tensor) -> Tensor:
    """Mean size of the error's steps across the borders of cells; error [..., H, W]."""
    across = error[..., PATCH::PATCH] - error[..., PATCH - 1 : -1 : PATCH]
    down = error[..., PATCH::PATCH, :] - error[..., PATCH - 1 : -1 : PATCH, :]
    return across.abs().mean() + down.abs().mean()
