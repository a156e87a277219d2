"""A measure as reports state it: a value, what it was counted on, how sure it is, and its bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Z95 = 1.959963984540054
"""Standard deviations on each side that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Measure:
    """One line of a report.

    Attributes:
        value: 0..1 for a share.
        clips: that it was counted on.
        unit: levels are those of 0..255.
        low, high: 95 % interval of a share, None for the others.
        at_least, at_most: the bar, None where none is known.
    """

    name: str
    value: float
    clips: int
    unit: Literal["share", "ratio", "levels"] = "share"
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    at_most: float | None = None


def share(
    name: str, held: Sequence[bool], *, at_least: float | None = None, at_most: float | None = None
) -> Measure:
    """How many of the clips something holds for; at least one clip."""
    low, high = wilson(sum(held), len(held))
    value = sum(held) / len(held)
    return Measure(name, value, len(held), low=low, high=high, at_least=at_least, at_most=at_most)


def shares(
    tally: Mapping[str, Sequence[bool]], bars: Mapping[str, float] | None = None, prefix: str = ""
) -> list[Measure]:
    """A share per criterion.

    Args:
        tally: criterion -> verdicts, see `held_out.tally`.
        bars: criterion -> the share that is to be reached.
        prefix: of the names.
    """
    bars = bars or {}
    return [share(prefix + name, held, at_least=bars.get(name)) for name, held in tally.items()]


def wilson(held: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        held: of `count` trials, which are 1 at least.
    """
    p, z2 = held / count, Z95**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    reach = Z95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)
