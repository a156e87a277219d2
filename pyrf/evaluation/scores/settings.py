"""Rewards by their settings, as a recipe states them, and the one score that a training goes by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pyrf.dtypes import dtype_of
from pyrf.evaluation.scores.combine import TOTAL, CombinedReward
from pyrf.evaluation.scores.protocol import Reward
from pyrf.settings import Settings

Judge = Callable[[Tensor, list[str]], Tensor]
"""Frames uint8 [B, T, H, W, 3] and B prompts to float32 [B]; NaN where a sample could not be scored."""


class MotionSettings(Settings):
    """`pyrf.evaluation.scores.motion.MotionReward`. `score` is what a training goes by."""

    kind: Literal["motion"]
    score: Literal["motion", "magnitude", "coherence", "permanence"] = "motion"


class VideoAlignSettings(Settings):
    """`pyrf.evaluation.scores.video_align.judge.VideoAlignReward`, by default on the GPU if there is one."""

    kind: Literal["video_align"]
    checkpoint: Path
    base: Path
    score: Literal["VQ", "MQ", "TA"] = "MQ"
    device: str | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    batch_size: int = Field(default=4, gt=0)


class CombinedSettings(Settings):
    """`pyrf.evaluation.scores.combine.CombinedReward`; a training goes by the weighted sum."""

    kind: Literal["combined"]
    rewards: list[Annotated[MotionSettings | VideoAlignSettings, Field(discriminator="kind")]] = Field(
        min_length=1
    )
    weights: dict[str, float] = Field(min_length=1)


RewardSettings = Annotated[
    MotionSettings | VideoAlignSettings | CombinedSettings, Field(discriminator="kind")
]
"""What a recipe embeds."""


def single_rewards(settings: RewardSettings | None) -> list[MotionSettings | VideoAlignSettings]:
    """A combination's rewards, or the only one; none for None."""
    if settings is None:
        return []
    return settings.rewards if isinstance(settings, CombinedSettings) else [settings]


def load_reward(settings: RewardSettings) -> Reward:
    """Build the reward that the settings describe.

    Raises:
        RewardError: when a library or a file is missing, or weights do not fit the scores.
    """
    match settings:
        case MotionSettings():
            from pyrf.evaluation.scores.motion import MotionReward

            return MotionReward()
        case VideoAlignSettings():
            from pyrf.evaluation.scores.video_align.judge import VideoAlignReward

            return VideoAlignReward(
                settings.checkpoint,
                settings.base,
                device=settings.device or ("cuda" if torch.cuda.is_available() else "cpu"),
                dtype=dtype_of(settings.dtype),
                batch_size=settings.batch_size,
            )
        case CombinedSettings():
            return CombinedReward([load_reward(part) for part in settings.rewards], settings.weights)


def load_judge(settings: RewardSettings) -> Judge:
    """The same as a function to the one score that a training goes by.

    Raises:
        RewardError: as `load_reward`.
    """
    reward = load_reward(settings)
    name = TOTAL if isinstance(settings, CombinedSettings) else settings.score
    return lambda frames, prompts: reward(frames, prompts)[name]
