"""What a reward is, the checks that all rewards share, and which samples may be trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

Scores = dict[str, Tensor]
"""Name -> float32 [B], on the CPU; NaN where a sample could not be scored."""


class RewardError(ValueError):
    """Clips that cannot be scored, or a reward that cannot be built; the message says what to change."""


class Reward(Protocol):
    """Scores clips. Higher is better; no gradient flows.

    Attributes:
        names: of the scores that a call returns.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        """Score B clips.

        Args:
            frames: uint8 [B, T, H, W, 3], RGB, on any device.
            prompts: B prompts.

        Returns:
            One float32 [B] on the CPU a name. A score that is not finite is returned as NaN; it is the
            caller who leaves such samples out, as `pyrf.training.objectives.dmd.reward_weights` does.

        Raises:
            RewardError: when frames or prompts are not of the form above, or the clips are too short.
        """
        ...


def check_clips(frames: Tensor, prompts: Sequence[str], *, min_frames: int, min_size: int) -> None:
    """Refuse what no reward can score.

    Args:
        min_frames: frames that a clip must have at least.
        min_size: pixels that each side of a frame must have at least.

    Raises:
        RewardError: naming what was given and what was expected.
    """
    form = "frames must be uint8 [B, T, H, W, 3]"
    if not isinstance(frames, Tensor):
        raise RewardError(f"{form}, a torch tensor, got {type(frames).__name__}")
    if frames.dtype != torch.uint8:
        raise RewardError(f"{form}, got {frames.dtype}; scale to 0..255 and convert")
    if frames.ndim != 5 or frames.shape[-1] != 3:
        raise RewardError(f"{form}, got shape {list(frames.shape)}")
    if isinstance(prompts, str):
        raise RewardError("prompts must be a list with one prompt a clip, got a single string")
    batch, num_frames, height, width, _ = frames.shape
    if not batch or not len(prompts):
        raise RewardError(f"nothing to score: {batch} clips and {len(prompts)} prompts")
    if len(prompts) != batch:
        raise RewardError(f"one prompt a clip: got {len(prompts)} prompts for {batch} clips")
    if num_frames < min_frames:
        raise RewardError(f"clips must have at least {min_frames} frames for this reward, got {num_frames}")
    if min(height, width) < min_size:
        raise RewardError(f"frames must be at least {min_size} pixels a side, got {height} x {width}")


def as_scores(values: Mapping[str, Sequence[float] | Tensor]) -> Scores:
    """Float32 [B] on the CPU for each name, with NaN for all that is not finite."""
    scores = {}
    for name, value in values.items():
        score = torch.as_tensor(value, dtype=torch.float32).detach().cpu()
        scores[name] = torch.where(score.isfinite(), score, math.nan)
    return scores
