"""What can be measured on the pixels of clips, whatever they show."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pyrf.worlds.world import Frames

FLAT = 8.0
"""Levels: a frame whose pixels deviate less from their mean is flat; true frames have 10 at least."""
SATURATED = 0.5
"""Share of values at the ends of the range from which a frame is saturated; true frames stay below 0.1."""
_ENDS = 2
"""Levels from 0 and 255 that still are the ends."""


def differences(frames: Frames) -> NDArray[np.float64]:
    """Mean absolute difference of each frame and the next, in levels: [T, H, W, 3] -> [T - 1]."""
    return np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(frames)], dtype=np.float64)


def is_blown_up(frame: Frames) -> bool:
    """Whether a frame, [H, W, 3], is flat, or saturated in half of its values."""
    ends = (frame <= _ENDS) | (frame >= 255 - _ENDS)
    return bool(frame.std((0, 1)).mean() < FLAT or ends.mean() > SATURATED)


def gradient_energy(frames: Frames) -> float:
    """Mean squared difference of the brightness of neighbours, along both axes, in levels squared.

    frames: [T, H, W, 3].
    """
    grey = frames.mean(-1, dtype=np.float32)
    return float((np.diff(grey, axis=1) ** 2).mean() + (np.diff(grey, axis=2) ** 2).mean())


def look(frames: Frames) -> NDArray[np.float64]:
    """Mean colours of a clip in levels, of its upper third, where the sky is, and of the whole: [2, 3]."""
    top = frames[:, : frames.shape[1] // 3]
    return np.stack([part.mean((0, 1, 2), dtype=np.float64) for part in (top, frames)])


def look_distances(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of two looks in levels: of the upper third, and of the whole, [2]."""
    return np.linalg.norm(first - second, axis=1)


class Borders:
    """Frame differences across the borders of chunks and inside of chunks, over any number of clips."""

    _LEAST = 0.01
    """Levels; the differences inside chunks count as this at least, so that still clips have a ratio."""

    def __init__(self) -> None:
        self._across: list[NDArray[np.float64]] = []
        self._inside: list[NDArray[np.float64]] = []

    def add(self, frames: Frames, starts: list[int]) -> None:
        """A clip, [T, H, W, 3], and the frames at which its chunks start."""
        found = differences(frames)
        is_border = np.isin(np.arange(1, len(frames)), starts)
        self._across.append(found[is_border])
        self._inside.append(found[~is_border])

    def ratio(self) -> float:
        """The 95th percentile across borders over that inside; 1 where borders do not show."""
        across, inside = (np.percentile(np.concatenate(d), 95) for d in (self._across, self._inside))
        return float(across / max(inside, self._LEAST))
