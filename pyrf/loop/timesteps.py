"""What is made of a timestep, kept for the calls and chunks that come back to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from pyrf.loop.held import Timestep

MOST_KEPT = 32
"""Timesteps of a stream; a few are its own, and live video that is restyled brings any."""

K = TypeVar("K", bound=Timestep)
T = TypeVar("T")


class PerTimestep(Generic[K, T]):
    """Made once per timestep; of very many the ones that were used last are kept."""

    def __init__(self) -> None:
        self._kept: dict[K, T] = {}

    def get(self, timestep: K, make: Callable[[K], T]) -> T:
        """What was made of a timestep, or is now."""
        found = self._kept.pop(timestep) if timestep in self._kept else make(timestep)
        self._kept[timestep] = found
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return found

    def clear(self) -> None:
        """Forget all: the network has changed."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)
