"""Weighted sums of scores: one number out of several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyrf.evaluation.scores.protocol import Score, ScoreError, Scores

TOTAL = "reward"
"""Name of the weighted sum."""


class CombinedScore:
    """All values of its parts, and "reward", their weighted sum; NaN where a value with a weight is.

    Args:
        parts: scores whose names differ.
        weights: name -> weight; values without one are returned but not summed.

    Raises:
        ScoreError: on a weight for a name that no part has, is not finite or is zero, or a name twice.
    """

    def __init__(self, parts: Sequence[Score], weights: Mapping[str, float]) -> None:
        known = Counter(name for part in parts for name in part.names)
        twice = [name for name, times in known.items() if times > 1 or name == TOTAL]
        if twice:
            raise ScoreError(f"more than one part has a score {twice[0]!r}")
        if not weights:
            raise ScoreError(f"a combination needs weights; the scores are {', '.join(known)}")
        for name, weight in weights.items():
            if name not in known:
                raise ScoreError(f"no score {name!r} to give a weight; the scores are {', '.join(known)}")
            if not math.isfinite(weight) or not weight:
                raise ScoreError(f"weight of {name} must be finite and not zero, got {weight}")
        self.parts, self.weights = tuple(parts), dict(weights)

    @property
    def names(self) -> tuple[str, ...]:
        return (*(name for part in self.parts for name in part.names), TOTAL)

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        """See `Score`."""
        scores: Scores = {}
        for part in self.parts:
            scores |= part(frames, prompts)
        total = torch.stack([weight * scores[name] for name, weight in self.weights.items()]).sum(dim=0)
        return {**scores, TOTAL: total}
