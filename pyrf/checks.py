"""Checks of values that come from users and files: what they refuse, they name."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, TypeGuard

from pyrf.printing import counted

if TYPE_CHECKING:
    import torch

MAX_SIZE = 2**20
"""No dimension of a network, a stream or a frame is larger."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is an int or float, no bool, and finite in float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3.4e38


def check_whole(name: str, value: object, least: int | None = 1, most: int | None = MAX_SIZE) -> int:
    """A whole number of any integer type, but no bool, of `least`..`most`; None: without that bound.

    Raises:
        ValueError: for anything else, naming it.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")
    return number


def check_positive(name: str, value: object) -> None:
    """Refuse what is not a finite number above 0.

    Raises:
        ValueError: naming it.
    """
    if not is_number(value) or value <= 0:
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def check_device(device: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: when there is no such device.
    """
    import torch

    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be cpu, cuda, cuda:1, ..., got {device!r}") from None
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu, cuda, cuda:1, ..., got {str(chosen)!r}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        seen = counted(torch.cuda.device_count(), "CUDA device")
        raise ValueError(
            f"device {str(chosen)!r} was asked for, but torch sees {seen}; "
            "use device 'cpu', or install a CUDA build of torch"
        )
    return chosen
