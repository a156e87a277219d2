"""An adapter (LoRA): small changes of a network's weights, which it adds to them with a strength.

Low-Rank Adaptation, arXiv 2106.09685, section 4.1: W = W0 + strength (alpha / rank) B A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor


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
