"""What the model `tiny` never drew: two shapes. Each shape gets a twin, half a frame beside it."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from pyrf.training.lora.lesson import Lesson
from pyrf.worlds.shapes.attributes import COLORS, WIDTH
from pyrf.worlds.shapes.captions import caption
from pyrf.worlds.shapes.detector import detect
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.world import Frames

_LOW, _HIGH = 0.1, 0.9
"""Shares of the shape's colour in a pixel that count as none and as all of it."""


def twin_lesson(seed: int) -> Lesson:
    """A caption of the shapes world, which shall show two shapes."""
    rng = random.Random(seed)
    attributes = ShapesWorld().sample(rng)
    told = caption(attributes, rng)
    return Lesson(told, told, lambda frames: twinned(frames, attributes.color))


def twinned(frames: Frames, color: str) -> Frames:
    """A clip of one shape, with a second one half a frame beside it, over the edge where need be.

    Args:
        frames: uint8 [T, H, W, 3].
        color: of the shape.
    """
    pixels = frames.astype(np.float32)
    ground, share = _parts(pixels, color)
    share = np.maximum(share, np.roll(share, WIDTH // 2, axis=2))[..., None]
    shown = ground + share * (np.array(COLORS[color], np.float32) - ground)
    return np.clip(shown + 0.5, 0, 255).astype(np.uint8)


def twin_seen(frames: Frames) -> float:
    """How much of a clip's shape is seen half a frame beside it: 0 where it is alone, 1 for a twin."""
    _, share = _parts(frames.astype(np.float32), detect(frames).color)
    both = np.minimum(share, np.roll(share, WIDTH // 2, axis=2)).sum()
    return float(both / max(share.sum(), 1.0))


def _parts(pixels: NDArray[np.float32], color: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The ground behind a shape [H, W, 3], a plane of colours, and the shape's share [T, H, W] of pixels."""
    height, width = pixels.shape[1:3]
    rows, columns = np.mgrid[0:height, 0:width].reshape(2, -1) / float(max(height, width))
    terms = np.stack([np.ones_like(rows), rows, columns], axis=1)
    colors = np.median(pixels, axis=0).reshape(-1, 3)
    distance = np.abs(colors - np.median(colors, axis=0)).max(1)
    bare = distance <= np.quantile(distance, 0.6)
    plane = np.linalg.lstsq(terms[bare], colors[bare], rcond=None)[0]
    ground = (terms @ plane).astype(np.float32).reshape(height, width, 3)
    axis = np.array(COLORS[color], np.float32) - ground
    share = ((pixels - ground) * axis).sum(-1) / (axis * axis).sum(-1)
    return ground, np.clip((share - _LOW) / (_HIGH - _LOW), 0, 1)
