"""Values that are infinite or not a number, and what is said where they come up."""

from __future__ import annotations

from torch import Tensor


class NotFiniteError(FloatingPointError, ValueError):
    """Values that are infinite or not a number. The message says whose they are."""


def check_finite(what: str, x: Tensor) -> None:
    """Refuse a tensor that was given from outside; on a GPU it is waited for.

    Raises:
        NotFiniteError: naming what it is, and how many of its values are not finite.
    """
    finite = x.isfinite()
    if not bool(finite.all()):
        bad = x.numel() - int(finite.sum())
        raise NotFiniteError(f"{what} must be finite, but {bad} of {x.numel()} values are not")
