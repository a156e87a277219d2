"""Clips of scenes as tensors, drawn when they are needed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pyrf.training.scratch.latents import LONGEST_SECONDS
from pyrf.worlds.valley.attributes import FPS
from pyrf.worlds.valley.scene import Scene
from pyrf.worlds.valley.world import Valley

FIRST_SEED, HELD_OUT_SEED = 10**7, 10**9
"""Of the scenes that are trained on, and of those that only evaluations see."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Draw with a single thread: a scene is many small operations, which others would only slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def clip(world: Valley, seed: int, frames: int) -> tuple[Scene, int, Tensor]:
    """A scene, a time up to 90 seconds into it, and its frames from there on, uint8 [frames, 3, H, W]."""
    scene = world.scene(seed)
    first = random.Random(f"clip {seed}").randrange(LONGEST_SECONDS * FPS)
    with one_thread():
        return scene, first, scene.draw(first, frames)


def balloon_mask(scene: Scene, first: int, frames: int, height: int, width: int) -> Tensor:
    """Where the balloon's envelope is: float [frames, 1, height, width]; all 0 without one."""
    mask = torch.zeros(frames, 1, height, width, dtype=torch.float32, device="cpu")
    if scene.flight is None:
        return mask
    y = (torch.arange(height, dtype=torch.float32, device="cpu") + 0.5)[:, None]
    x = (torch.arange(width, dtype=torch.float32, device="cpu") + 0.5)[None]
    for number in range(frames):
        for at_x, at_y in scene.balloons(first + number):
            inside = (x - at_x).square() + (y - at_y).square() < (1.1 * scene.flight.radius) ** 2
            mask[number, 0][inside] = 1
    return mask
