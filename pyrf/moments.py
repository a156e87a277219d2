"""Times as people type them: seconds, or [hh:]mm:ss, both with decimals; what looks mistyped is refused."""

from __future__ import annotations

import re
from decimal import Decimal

_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}")
_CLOCK = re.compile(r"(?:([0-9]{1,9}):([0-5][0-9])|([0-9]{1,9})):([0-5][0-9](?:\.[0-9]{1,30})?)")
# A colon that ends a time: what a digit follows is part of it.
_END = re.compile(r":(?![.,]?\d)")

FORM = "a time is seconds, as 7.5, or [hh:]mm:ss, as 1:07.5, with two digits below 60 behind each colon"


def parse_time(text: str) -> float:
    """Seconds of a time: `90`, `1:30` and `0:01:30.0` are the same. Round about it there may be spaces.

    Raises:
        ValueError: for anything else, negative times, units and other digits than 0-9 included.
    """
    stripped = text.strip()
    if _SECONDS.fullmatch(stripped):
        return float(stripped)
    found = _CLOCK.fullmatch(stripped)
    if found is None:
        raise ValueError(f"{FORM}; got {text!r}")
    hours, minutes, all_minutes, seconds = found.groups()
    total = 3600 * Decimal(hours or 0) + 60 * Decimal(minutes or all_minutes) + Decimal(seconds)
    return float(total)


def format_time(seconds: float) -> str:
    """A time as `parse_time` reads it, exactly: 90.5 -> `1:30.5`. It must be finite and not negative."""
    exact = Decimal(repr(float(seconds)))
    all_minutes, rest = divmod(exact, 60)
    hours, minutes = divmod(int(all_minutes), 60)
    whole, _, decimals = format(rest, "f").partition(".")
    decimals = decimals.rstrip("0")
    text = f"{minutes:02}:{whole:0>2}" if hours else f"{minutes}:{whole:0>2}"
    return (f"{hours}:" if hours else "") + text + (f".{decimals}" if decimals else "")


def split_time(text: str) -> tuple[str, str]:
    """`1:30:a blue square` -> (`1:30`, `a blue square`); the first colon that no digit follows ends the time.

    So a prompt that begins with a digit has a space before it: `5: 10:30 on a clock`.

    Raises:
        ValueError: when no colon ends the time.
    """
    end = _END.search(text)
    if end is None:
        raise ValueError(
            f"TIME:PROMPT is needed, such as '2.5:a blue square' or '1:30:a blue square', got {text!r}; "
            "a prompt that begins with a digit has a space before it, as in '5: 2 circles'"
        )
    return text[: end.start()].strip(), text[end.end() :].strip()
