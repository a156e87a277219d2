"""What a score is, and the checks that all scores share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pyrf.printing import counted

Scores = dict[str, Tensor]
"""Name -> float32 [B] on the CPU; NaN where a sample could not be scored."""


class ScoreError(ValueError):
    """Clips that cannot be scored, or a score that cannot be built; the message says what to change."""


class Score(Protocol):
    """Scores clips. Higher is better; no gradient flows.

    Attributes:
        names: of the values that a call returns.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        """Score B clips.

        Args:
            frames: uint8 [B, T, H, W, 3], RGB, on any device.
            prompts: B prompts.

        Returns:
            For each name float32 [B] on the CPU. A value that is not finite is returned as NaN: it is the
            caller who leaves such samples out.

        Raises:
            ScoreError: when frames or prompts are not of the form above, or the clips are too short.
        """
        ...


def check_clips(frames: Tensor, prompts: Sequence[str], *, min_frames: int, min_size: int) -> None:
    """Refuse what cannot be scored.

    Args:
        min_frames: frames that a clip must have at least.
        min_size: pixels that each side of a frame must have at least.

    Raises:
        ScoreError: naming what was given and what was expected.
    """
    form = "frames must be uint8 [B, T, H, W, 3]"
    if not isinstance(frames, Tensor):
        raise ScoreError(f"{form}, a torch tensor, got {type(frames).__name__}")
    if frames.dtype != torch.uint8:
        raise ScoreError(f"{form}, got {frames.dtype}; scale to 0..255 and convert")
    if frames.ndim != 5 or frames.shape[-1] != 3:
        raise ScoreError(f"{form}, got shape {list(frames.shape)}")
    if isinstance(prompts, str):
        raise ScoreError("prompts must be a list with one prompt per clip, got a single string")
    batch, num_frames, height, width, _ = frames.shape
    clips, given = counted(batch, "clip"), counted(len(prompts), "prompt")
    if not batch or not len(prompts):
        raise ScoreError(f"nothing to score: {clips} and {given}")
    if len(prompts) != batch:
        raise ScoreError(f"one prompt per clip: got {given} for {clips}")
    if num_frames < min_frames:
        least = counted(min_frames, "frame")
        raise ScoreError(f"clips must have at least {least} for this score, got {num_frames}")
    if min(height, width) < min_size:
        raise ScoreError(f"frames must be at least {min_size} pixels per side, got {height} x {width}")


def as_scores(values: Mapping[str, Sequence[float] | Tensor]) -> Scores:
    """Float32 [B] on the CPU for each name, with NaN for all that is not finite."""
    scores = {}
    for name, value in values.items():
        score = torch.as_tensor(value, dtype=torch.float32, device="cpu").detach()
        scores[name] = torch.where(score.isfinite(), score, math.nan)
    return scores
