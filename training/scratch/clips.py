"""Clips of a world's scenes as tensors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.worlds.world import Frames

WARM_LATENTS = 1
"""Latents encoded ahead of a stretch, so that it looks like the middle of an endless video."""


def to_tensor(clips: Sequence[Frames]) -> Tensor:
    """uint8 [T, H, W, 3] each -> float [B, T, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).float() / 255


def close_up(
    focus: tuple[int, int], size: tuple[int, int], side: int, rng: random.Random
) -> tuple[slice, slice]:
    """Rows and columns of a random square within a frame that holds a point.

    Args:
        focus: row and column of the point.
        size: height and width of the frame, pixels.
        side: of the square, pixels.
    """
    spans = []
    for centre, length in zip(focus, size):
        start = rng.randint(max(0, centre - side + 1), min(length - side, centre))
        spans.append(slice(start, start + side))
    return spans[0], spans[1]


def edges(video: Tensor) -> Tensor:
    """Largest step of a channel to the next pixel right or below: [..., 3, H, W] -> [..., H, W]."""
    right = F.pad((video[..., 1:] - video[..., :-1]).abs(), (0, 1))
    below = F.pad((video[..., 1:, :] - video[..., :-1, :]).abs(), (0, 0, 0, 1))
    return (right + below).amax(-3)
