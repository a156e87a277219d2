"""What a score is calibrated by: its mean and std over true clips whose captions leave the speed open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pyrf import printing
from pyrf.evaluation.scores.normalise import Normaliser

NUM_FRAMES = 33
"""Of each clip."""


def save_stats(path: Path, scores: Mapping[str, Tensor], *, module: str) -> Normaliser:
    """Write mean and std of each score, [clips] of true clips, with the module that made them."""
    normaliser = Normaliser({name: (float(s.mean()), float(s.std())) for name, s in scores.items()})
    count = len(next(iter(scores.values())))
    clips = f"{count} clips of {NUM_FRAMES} frames, speed open"
    normaliser.save(path, command=f"python -m {module}", clips=clips)
    return normaliser


def print_stats(normaliser: Normaliser) -> None:
    """A line for each score."""
    for name, (mean, std) in normaliser.stats.items():
        printing.say(f"{name}: mean {mean:.3f}, std {std:.3f}")
