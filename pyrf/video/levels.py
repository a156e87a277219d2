"""Pixels of any kind as levels of 0..255, where it is known what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 2e-3
"""By how much a float may leave 0..1: half a level, as resizing and rounding do."""


def as_levels(pixels: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """uint8 as it is, uint16 from 0..65535, bool from False and True, floats from 0..1.

    Args:
        pixels: an array of any shape.
        what: whose pixels they are; messages begin with it.

    Raises:
        ValueError: for another dtype, or floats outside of 0..1, of which nobody can tell what they mean.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"{what} must be uint8 0..255, uint16 0..65535 or floats 0..1, got {pixels.dtype}")
    if not pixels.size:
        return pixels.astype(np.uint8)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN is refused, too
        raise ValueError(
            f"{what} must lie in 0..1 where it is floats, got {low:.6g}..{high:.6g}; divide by its largest "
            "possible value, or give uint8"
        )
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def integers_as_levels(pixels: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """32-bit integers of a file, which say nothing of their range: taken as 16-bit where only that fits.

    Raises:
        ValueError: when their values fit 8 bits as well, or not even 16.
    """
    low, high = (int(pixels.min()), int(pixels.max())) if pixels.size else (0, 0)
    if not 0 <= low <= high <= 65535 or 0 < high <= 255:
        raise ValueError(
            f"{what} holds 32-bit integers of {low}..{high}, and nothing says which of them is white; "
            "save it in 8 or 16 bits"
        )
    return as_levels(pixels.astype(np.uint16), what)
