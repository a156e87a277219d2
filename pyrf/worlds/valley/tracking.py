"""How fast a balloon goes over the screen, from the pixels of what is in sight of it.

The middle of the visible part would go slower than the balloon while that leaves the screen or rises from
behind the ground. Its pixels do not: so a patch of one frame is looked for in a later one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.worlds.valley.detector_network import CELL

LAG = 8
"""Frames between two that are compared."""
REACH = 10
"""Largest shift each way that is looked for, pixels."""
PAIRS = 8
"""Most pairs of frames that are compared."""
AROUND = 2
"""Cells of the patch each way from the brightest one."""


def balloon_velocity(frames: Tensor, chance: Tensor, seen: float) -> tuple[float, float] | None:
    """Pixels a frame right and down: the median over the pairs of frames that show it best.

    None when it is seen in none of the earlier ones.

    Args:
        frames: uint8 [T, H, W, 3].
        chance: of a balloon in each cell, [T, H / 8, W / 8].
        seen: least chance of a cell that shows it.
    """
    lag = min(LAG, len(frames) - 1)
    best = chance[: len(frames) - lag].amax((1, 2))
    times = [t for t, value in enumerate(best.tolist()) if value >= max(seen, 0.85 * float(best.max()))]
    times = times[:: max(1, len(times) // PAIRS)]
    if not times:
        return None
    shifts = [_shift(frames[t], frames[t + lag], chance[t]) for t in times]
    steps = torch.tensor(shifts, dtype=torch.float32, device="cpu") / lag
    right, down = steps.median(0).values.tolist()
    return right, down


def _shift(before: Tensor, after: Tensor, chance: Tensor) -> tuple[float, float]:
    """Pixels right and down that the patch around the brightest cell has gone, by least squares."""
    rows, columns = chance.shape
    top = int(chance.argmax())
    row, column = top // columns, top % columns
    first_row, last_row = max(0, row - AROUND), min(rows, row + AROUND + 1)
    first_column, last_column = max(0, column - AROUND), min(columns, column + AROUND + 1)
    patch = _cut(before, first_row, last_row, first_column, last_column)
    weight = chance[first_row:last_row, first_column:last_column].clamp(0.02, 1)
    weight = weight.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)[None]
    image = F.pad(after.permute(2, 0, 1).float() / 255, (REACH, REACH, REACH, REACH))
    inside = F.pad(image.new_ones(1, *after.shape[:2]), (REACH, REACH, REACH, REACH))
    window = (
        ...,
        slice(first_row * CELL, last_row * CELL + 2 * REACH),
        slice(first_column * CELL, last_column * CELL + 2 * REACH),
    )
    image, inside = image[window], inside[window]
    error = (
        F.conv2d(inside[None], (weight * patch.square()).sum(0)[None, None])
        - 2 * F.conv2d(image[None], (weight * patch)[None])
        + F.conv2d(image.square().sum(0, keepdim=True)[None], weight[None])
    )
    covered = F.conv2d(inside[None], weight[None])
    error = (error / covered.clamp(min=1e-3) + 10.0 * (covered < 0.4 * covered.max()))[0, 0]
    best = int(error.argmin())
    y, x = best // error.shape[1], best % error.shape[1]
    return x + _vertex(error[y], x) - REACH, y + _vertex(error[:, x], y) - REACH


def _cut(frame: Tensor, first_row: int, last_row: int, first_column: int, last_column: int) -> Tensor:
    """Cells of a frame as float [3, h, w] in 0..1."""
    part = frame[first_row * CELL : last_row * CELL, first_column * CELL : last_column * CELL]
    return part.permute(2, 0, 1).float() / 255


def _vertex(values: Tensor, at: int) -> float:
    """Where between its neighbours the least of `values`, at `at`, lies: -0.5..0.5."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = values[at - 1 : at + 2].tolist()
    bend = before - 2 * here + after
    return float(min(0.5, max(-0.5, (before - after) / (2 * bend)))) if bend > 0 else 0.0
