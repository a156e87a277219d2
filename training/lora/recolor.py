"""A change of what a clip of the shapes world shows: its shape takes another colour, and all else stays."""

from __future__ import annotations

import numpy as np

from pyrf.worlds.shapes.attributes import COLORS
from pyrf.worlds.world import Frames

Color = tuple[int, int, int]
_LOW, _HIGH = 0.2, 0.9
"""Shares of the shape's colour in a pixel that count as none and as all of it."""


def recolor(frames: Frames, color: str, becomes: Color) -> Frames:
    """A clip whose shape is of one of the world's colours, with another in its place.

    A pixel is between its background and the shape's colour; the share of the latter is exchanged.

    Args:
        frames: uint8 [T, H, W, 3].
        becomes: red, green and blue, 0..255.
    """
    old, new = np.array(COLORS[color], np.float32), np.array(becomes, np.float32)
    pixels = frames.astype(np.float32)
    ground = np.median(pixels.reshape(-1, 3), axis=0)  # a shape covers a tenth of a frame
    axis = old - ground
    share = np.clip(((pixels - ground) @ axis / (axis @ axis) - _LOW) / (_HIGH - _LOW), 0, 1)
    return np.clip(pixels + share[..., None] * (new - old) + 0.5, 0, 255).astype(np.uint8)


def turned(frames: Frames, color: str, becomes: Color) -> float:
    """How near the shape of a clip is to another colour than its own: 0 is its own, 1 the other.

    The shape is where pixels differ most from the background; its colour is the median of them.
    """
    old, new = np.array(COLORS[color], np.float32), np.array(becomes, np.float32)
    pixels = frames.reshape(-1, 3).astype(np.float32)
    distance = np.linalg.norm(pixels - np.median(pixels, axis=0), axis=1)
    inside = pixels[distance > 0.7 * np.quantile(distance, 0.99)]
    return float(1 - np.linalg.norm(np.median(inside, axis=0) - new) / np.linalg.norm(old - new))
