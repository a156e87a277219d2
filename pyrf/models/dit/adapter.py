"""An adapter (LoRA): small changes of a network's weights, which it adds to them with a strength.

Low-Rank Adaptation, arXiv 2106.09685, section 4.1: W = W0 + strength (alpha / rank) B A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from pyrf.config import MAX_STRENGTH


class LowRank(NamedTuple):
    """A change of a weight: ``factor`` times ``up`` @ ``down``.

    Attributes:
        up: B, [out_features, rank].
        down: A, [rank, in_features].
        factor: alpha / rank.
    """

    up: Tensor
    down: Tensor
    factor: float


class Added(NamedTuple):
    """A change of a parameter that is stored whole: ``factor`` times ``values``, of the parameter's shape."""

    values: Tensor
    factor: float = 1.0


Change = LowRank | Added


@dataclass(frozen=True)
class Adapter:
    """Changes of a network's parameters.

    Attributes:
        name: by which its strength is set.
        strength: that it begins with.
        path: of its file.
        changes: what is added to each parameter it touches, by the parameter's name in `WanModel`.
    """

    name: str
    strength: float
    path: Path
    changes: Mapping[str, tuple[Change, ...]]

    def __repr__(self) -> str:
        return f"<Adapter {self.name} at {self.strength:g}: {len(self.changes)} weights, {self.path}>"


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
