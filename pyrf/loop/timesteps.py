"""What is made of a timestep, kept for the calls and chunks that come back to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from pyrf.loop.held import Timestep

MOST_KEPT = 32
"""Timesteps of a stream; a few are its own, and live video that is restyled brings any."""

T = TypeVar("T")
K = TypeVar("K", bound=Timestep)


class PerTimestep(Generic[T]):
    """Made once per timestep; of very many the ones that were used last are kept."""

    def __init__(self) -> None:
        self._kept: dict[Timestep, T] = {}

    def get(self, timestep: K, make: Callable[[K], T]) -> T:
        """What was made of a timestep, or is now."""
        found = self._kept.pop(timestep) if timestep in self._kept else make(timestep)
        self._kept[timestep] = found
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return found

    def __len__(self) -> int:
        return len(self._kept)
