"""Who comes first when there is not enough time for all: every address gets the same time of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar


class Owned(Protocol):
    """Something that is asked for from an address."""

    @property
    def address(self) -> str: ...


T = TypeVar("T", bound=Owned)


class Shares(Generic[T]):
    """Counts the turns of addresses, and orders those who wait by them.

    Its clock is that of start-time fair queueing (Goyal, Vin and Cheng, 1996): a turn begins where the
    address's turn before ended, or now, whichever is later, and now is where the newest turn began. The turn
    that ends first comes first. So who takes less than its share is first as soon as it wants something, and
    saves nothing up; and a short turn does not wait for a long one of the same beginning.

    Args:
        length: of a turn; by default all are alike.
    """

    def __init__(self, length: Callable[[T], float] = lambda _: 1.0) -> None:
        self._length = length
        self._now = 0.0
        self._ends: dict[str, float] = {}

    def order(self, waiting: Sequence[T]) -> list[T]:
        """Those who wait; the order among those of one address stays."""
        newest: dict[str, float] = {}
        ends = []
        for one in waiting:
            newest[one.address] = newest.get(one.address, self._begin(one.address)) + self._length(one)
            ends.append(newest[one.address])
        return [one for _, one in sorted(zip(ends, waiting), key=lambda pair: pair[0])]

    def count(self, served: Iterable[T]) -> None:
        """These had a turn."""
        for one in served:
            begin = self._begin(one.address)
            self._ends[one.address] = begin + self._length(one)
            self._now = max(self._now, begin)
        # An address whose turns ended in the past is as good as one that had none.
        self._ends = {address: end for address, end in self._ends.items() if end > self._now}

    def _begin(self, address: str) -> float:
        return max(self._now, self._ends.get(address, 0.0))
