"""Hashes and value noise along a line, the same for a column whatever else is drawn with it.

Only operations that IEEE 754 rounds in one way are used (no sine, no exponential), so a value depends
neither on the length of the tensor it is computed in nor on the number of threads.
"""

from __future__ import annotations

from torch import Tensor

_MASK = 0xFFFFFFFF


def hashed(cells: Tensor, seed: int) -> Tensor:
    """A uniform number in [0, 1) for each cell; cells int64, result float64 of the same shape."""
    x = (cells * 0x9E3779B1 + (seed * 0x85EBCA77 + 0x165667B1)) & _MASK
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & _MASK
    x = ((x ^ (x >> 12)) * 0x297A2D39) & _MASK
    return ((x ^ (x >> 15)) >> 8).double() * (1 / (1 << 24))


def noise(x: Tensor, seed: int, *, linear: bool = False) -> Tensor:
    """Value noise in [0, 1) with a knot at every whole x; x float64, result float64."""
    low = x.floor()
    cells = low.long()
    share = x - low
    if not linear:
        share = share * share * (3 - 2 * share)
    before = hashed(cells, seed)
    return before + (hashed(cells + 1, seed) - before) * share


def smooth(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, a cubic between."""
    share = ((x - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)
