"""Scores by their settings, as a recipe states them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field

from pyrf.dtypes import dtype_of
from pyrf.evaluation.scores.combine import CombinedScore
from pyrf.evaluation.scores.protocol import Score
from pyrf.files import expanded
from pyrf.settings import Settings

UserPath = Annotated[Path, AfterValidator(lambda path: Path(expanded(path)))]
"""A path that may begin with `~`."""


class MotionSettings(Settings):
    """`pyrf.evaluation.scores.motion.MotionScore`. `score` is what a training goes by."""

    kind: Literal["motion"]
    score: Literal["motion", "magnitude", "coherence", "permanence"] = "motion"


class CameraSettings(Settings):
    """`pyrf.evaluation.scores.camera.CameraScore`, of the valley."""

    kind: Literal["camera"]
    score: Literal["motion"] = "motion"


class VideoAlignSettings(Settings):
    """`pyrf.evaluation.scores.video_align.judge.VideoAlignScore`, by default on the GPU if there is one."""

    kind: Literal["video_align"]
    checkpoint: UserPath
    base: UserPath
    score: Literal["VQ", "MQ", "TA"] = "MQ"
    device: str | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    batch_size: int = Field(default=4, gt=0)


SingleSettings = MotionSettings | CameraSettings | VideoAlignSettings


class CombinedSettings(Settings):
    """`pyrf.evaluation.scores.combine.CombinedScore`; a training goes by the weighted sum."""

    kind: Literal["combined"]
    rewards: list[Annotated[SingleSettings, Field(discriminator="kind")]] = Field(min_length=1)
    weights: dict[str, float] = Field(min_length=1)


ScoreSettings = Annotated[SingleSettings | CombinedSettings, Field(discriminator="kind")]
"""What a recipe embeds."""


def single_scores(settings: ScoreSettings | None) -> list[SingleSettings]:
    """A combination's parts, or the only one; none for None."""
    if settings is None:
        return []
    return settings.rewards if isinstance(settings, CombinedSettings) else [settings]


def load_score(settings: ScoreSettings) -> Score:
    """Build the score that the settings describe.

    Raises:
        ScoreError: when a library or a file is missing, or weights do not fit the scores.
    """
    match settings:
        case MotionSettings():
            from pyrf.evaluation.scores.motion import MotionScore

            return MotionScore()
        case CameraSettings():
            from pyrf.evaluation.scores.camera import CameraScore

            return CameraScore()
        case VideoAlignSettings():
            from pyrf.evaluation.scores.video_align.judge import VideoAlignScore

            return VideoAlignScore(
                settings.checkpoint,
                settings.base,
                device=settings.device or ("cuda" if torch.cuda.is_available() else "cpu"),
                dtype=dtype_of(settings.dtype),
                batch_size=settings.batch_size,
            )
        case CombinedSettings():
            return CombinedScore([load_score(part) for part in settings.rewards], settings.weights)
