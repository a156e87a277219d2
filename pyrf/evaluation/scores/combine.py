"""Weighted sums of scores: one reward out of several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyrf.evaluation.scores.protocol import Reward, RewardError, Scores

TOTAL = "reward"
"""Name of the weighted sum."""


class CombinedReward:
    """All scores of its rewards, and "reward", their weighted sum; NaN where a score with a weight is.

    Args:
        rewards: whose score names differ.
        weights: score name -> weight; scores without one are returned but not summed.

    Raises:
        RewardError: on a weight for a score that no reward has, is not finite or is zero, or a name twice.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Mapping[str, float]) -> None:
        known = Counter(name for reward in rewards for name in reward.names)
        twice = [name for name, times in known.items() if times > 1 or name == TOTAL]
        if twice:
            raise RewardError(f"more than one reward has a score {twice[0]!r}")
        if not weights:
            raise RewardError(f"a combination needs weights; the scores are {', '.join(known)}")
        for name, weight in weights.items():
            if name not in known:
                raise RewardError(f"no score {name!r} to give a weight; the scores are {', '.join(known)}")
            if not math.isfinite(weight) or not weight:
                raise RewardError(f"weight of {name} must be finite and not zero, got {weight}")
        self.rewards, self.weights = tuple(rewards), dict(weights)

    @property
    def names(self) -> tuple[str, ...]:
        return (*(name for reward in self.rewards for name in reward.names), TOTAL)

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        """See `Reward`."""
        scores: Scores = {}
        for reward in self.rewards:
            scores |= reward(frames, prompts)
        total = torch.stack([weight * scores[name] for name, weight in self.weights.items()]).sum(dim=0)
        return {**scores, TOTAL: total}
