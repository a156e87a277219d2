"""The reward of a training: the one score that it goes by."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyrf.evaluation.scores.combine import TOTAL
from pyrf.evaluation.scores.settings import CombinedSettings, ScoreSettings, load_score

Reward = Callable[[Tensor, list[str]], Tensor]
"""Frames uint8 [B, T, H, W, 3] and B prompts to float32 [B]; NaN where a sample could not be scored."""


def load_reward(settings: ScoreSettings) -> Reward:
    """The score of these settings, as a function to the number that a training goes by.

    Raises:
        ScoreError: when a library or a file is missing, or weights do not fit the scores.
    """
    score = load_score(settings)
    name = TOTAL if isinstance(settings, CombinedSettings) else settings.score
    return lambda frames, prompts: score(frames, prompts)[name]
