"""The older path of `pyrf.evaluation.scores.motion`."""

from __future__ import annotations

import warnings

from pyrf.evaluation.scores.motion import MotionScore as MotionReward

__all__ = ["MotionReward"]

warnings.warn(
    "pyrf.training.rewards.motion.MotionReward is now pyrf.evaluation.scores.motion.MotionScore",
    DeprecationWarning,
    stacklevel=2,
)
