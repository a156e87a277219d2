"""Clips of a world's scenes as tensors."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.worlds.world import Frames, Scene, World

FIRST_SEED, HELD_OUT_SEED = 10**7, 10**9
"""Of the scenes that codecs and detectors are trained on, and of those that only evaluations see."""
LONGEST_SECONDS = 90
"""Into a scene that clips are taken from: streams are endless."""
WARM_LATENTS = 1
"""Latents encoded ahead of a stretch, so that it looks like the middle of an endless video."""


def to_tensor(clips: Sequence[Frames]) -> Tensor:
    """uint8 [T, H, W, 3] each -> float [B, T, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).float() / 255


def random_clip(world: World, seed: int, frames: int) -> tuple[Scene, int, Tensor]:
    """A scene, a time up to 90 seconds into it, and its frames from there on, uint8 [frames, 3, H, W]."""
    scene = world.scene(seed)
    first = random.Random(f"clip {seed}").randrange(LONGEST_SECONDS * world.fps)
    return scene, first, torch.from_numpy(scene.render(first, frames)).permute(0, 3, 1, 2).contiguous()


def subject_mask(scene: Scene, first: int, frames: int, height: int, width: int) -> Tensor:
    """Where a scene's subjects are: float [frames, 1, height, width]."""
    mask = torch.zeros(frames, 1, height, width, dtype=torch.float32, device="cpu")
    y = (torch.arange(height, dtype=torch.float32, device="cpu") + 0.5)[:, None]
    x = (torch.arange(width, dtype=torch.float32, device="cpu") + 0.5)[None]
    for number in range(frames):
        for at_x, at_y, radius in scene.subjects(first + number):
            inside = (x - at_x).square() + (y - at_y).square() < (1.1 * radius) ** 2
            mask[number, 0][inside] = 1
    return mask


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
