"""Strengths of adapters that a timeline changes, by a stream's method `set_adapters`."""

from __future__ import annotations

from collections.abc import Mapping

StrengthTimes = dict[int, Mapping[str, float]]
"""Strengths by the adapters' names, by the chunk from which on they hold."""


def check_adapters(stream: object, later: StrengthTimes) -> None:
    """Refuse strengths for a stream whose adapters cannot change.

    Raises:
        ValueError: naming them.
    """
    if later and not hasattr(stream, "set_adapters"):
        names = sorted({name for strengths in later.values() for name in strengths})
        raise ValueError(
            f"the timeline changes adapters ({', '.join(names)}), which this version of pyrf cannot "
            "change while a stream runs; leave their strengths out"
        )


def set_due(stream: object, later: StrengthTimes, chunk: int) -> None:
    """This chunk comes next: set the strengths that are due, which are then no longer in `later`."""
    for due in sorted(number for number in later if number <= chunk):
        stream.set_adapters(later.pop(due))  # type: ignore[attr-defined]
