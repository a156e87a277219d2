"""Videos that are good, and the same spoilt on purpose."""

from __future__ import annotations

import numpy as np

from pyrf.video.writer import Frames
from tests.support.moving_texture import moving_texture

NUM_FRAMES = 129
"""9 and ten chunks of 12."""
BORDERS = range(9, NUM_FRAMES, 12)


def good(seed: int) -> Frames:
    """A texture that moves, and another one that moves before it; 64 x 96."""
    frames = moving_texture(NUM_FRAMES + 24 * seed, 64, 96)[24 * seed :]
    return frames if seed % 2 else frames[:, :, ::-1]


def rolling(seed: int) -> Frames:
    """A texture that leaves the picture and comes in on the other side: its look never changes."""
    first = good(seed)[0]
    return np.stack([np.roll(first, 2 * t, axis=1) for t in range(NUM_FRAMES)])


def frozen(frames: Frames) -> Frames:
    return np.repeat(frames[:1], len(frames), axis=0)


def looped(frames: Frames) -> Frames:
    """The first two seconds again and again."""
    return frames[np.arange(len(frames)) % 32]


def cut_at_borders(frames: Frames) -> Frames:
    """Chunks that do not go on from each other: the content jumps 6 frames back, and then on."""
    index = np.arange(len(frames))
    jumps = sum((index >= border).astype(int) * (6 if i % 2 else -6) for i, border in enumerate(BORDERS))
    return frames[np.clip(index + jumps, 0, len(frames) - 1)]


def brightened_at_borders(frames: Frames) -> Frames:
    """Chunks whose brightness differs."""
    chunk = np.searchsorted(np.array(BORDERS), np.arange(len(frames)), side="right")
    offset = np.where(chunk % 2, 24, -24)[:, None, None, None]
    return (frames.astype(np.int16) + offset).clip(0, 255).astype(np.uint8)


def colour_drifted(frames: Frames) -> Frames:
    """Slowly redder, and paler."""
    share = np.linspace(0, 1, len(frames))[:, None, None, None]
    target = np.array([230.0, 120.0, 110.0])
    return (frames * (1 - 0.4 * share) + target * 0.4 * share).astype(np.uint8)


def noisy(frames: Frames) -> Frames:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 25, frames.shape)
    return (frames + noise).clip(0, 255).astype(np.uint8)
