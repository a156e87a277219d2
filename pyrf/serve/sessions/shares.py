"""Who comes first when there is not enough time for all: every address gets the same number of turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar


class Owned(Protocol):
    """Something that is asked for from an address."""

    @property
    def address(self) -> str: ...


T = TypeVar("T", bound=Owned)


class Shares:
    """Counts the turns of addresses, and orders those who wait by them.

    It is start-time fair queueing (Goyal, Vin and Cheng, 1996): a turn begins where the address's turn before
    ended, or now, whichever is later, on a clock that goes on by one each turn. So who takes less than its
    share is first as soon as it wants something, and saves nothing up.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[str, float] = {}

    def order(self, waiting: Sequence[T]) -> list[T]:
        """Those who wait; the order among those of one address stays."""
        ranks: Counter[str] = Counter()
        begins = []
        for one in waiting:
            begins.append(self._begin(one.address) + ranks[one.address])
            ranks[one.address] += 1
        return [one for _, one in sorted(zip(begins, waiting), key=lambda pair: pair[0])]

    def count(self, served: Iterable[Owned]) -> None:
        """These had a turn."""
        for one in served:
            begin = self._begin(one.address)
            self._ends[one.address] = begin + 1
            self._now = max(self._now, begin)
        # An address whose turns ended in the past is as good as one that had none.
        self._ends = {address: end for address, end in self._ends.items() if end > self._now}

    def _begin(self, address: str) -> float:
        return max(self._now, self._ends.get(address, 0.0))
