"""Progress in lines, for logs and pipes, where a bar would be of no use."""

from __future__ import annotations

import time
from collections.abc import Callable

from pyrf import printing

EVERY_S = 10.0
"""Seconds between two lines at least."""


class ProgressLines:
    """Says on stderr what is made, and now and then how far it has come.

    Args:
        num_frames: that will be made.
        clock: tells seconds.
    """

    def __init__(self, num_frames: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._num_frames, self._clock = num_frames, clock
        self._start = self._told = clock()
        printing.tell(f"making {printing.counted(num_frames, 'frame')}")

    def reach(self, done: int) -> None:
        """So many frames are made."""
        now = self._clock()
        if now - self._told < EVERY_S or done >= self._num_frames:
            return
        self._told = now
        rate = done / (now - self._start)
        left_s = (self._num_frames - done) / rate
        printing.tell(
            f"{done} of {self._num_frames} frames ({100 * done // self._num_frames} %), "
            f"{rate:.1f} FPS, about {left_s:.0f} s left"
        )
