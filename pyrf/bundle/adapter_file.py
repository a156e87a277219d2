"""Which adapter to load, and how: as Python gives it, and as the command line does. Free of torch."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from pyrf.config import MAX_STRENGTH
from pyrf.files import expanded


class AdapterFile(NamedTuple):
    """Which adapter to load, and how. A plain tuple will do in its place.

    Attributes:
        file: a local file or a folder of peft's, or "owner/name/file.safetensors" on the hub.
        strength: that it begins with; 0 is off, 1 is what it was trained for.
        name: by which its strength is set; by default the file's without its suffix.
    """

    file: str | Path
    strength: float = 1.0
    name: str | None = None


AdapterSpec = str | Path | tuple[str | Path, float] | tuple[str | Path, float, str | None] | AdapterFile
"""A file, a file with its strength, or an `AdapterFile`."""


def parse_adapter(text: str) -> AdapterFile:
    """`[NAME=]FILE[:STRENGTH]`, as the command line takes it; what is a file's name as it stands is one.

    Raises:
        ValueError: when the file is missing.
    """
    if text and Path(expanded(text)).exists():
        return AdapterFile(text)
    named = re.fullmatch(r"([\w.-]+)=(.*)", text)
    name, rest = (named[1], named[2]) if named else (None, text)
    file, colon, number = rest.rpartition(":")
    if not colon or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", number):
        file, number = rest, "1"
    if not file:
        raise ValueError(f"--lora takes [NAME=]FILE[:STRENGTH], got {text!r}")
    return AdapterFile(file, float(number), name)


def check_strength(name: str, strength: object) -> float:
    """The strength of an adapter.

    Raises:
        ValueError: when it is no number of -MAX_STRENGTH..MAX_STRENGTH.
    """
    good = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not good or not math.isfinite(value := float(strength)) or abs(value) > MAX_STRENGTH:  # type: ignore[arg-type]
        raise ValueError(
            f"the strength of adapter {name!r} must be a number of -{MAX_STRENGTH:g}..{MAX_STRENGTH:g}, "
            f"got {strength!r}; 0 switches it off, 1 is what it was trained for"
        )
    return value
