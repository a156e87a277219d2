"""Totals of VBench from the scores of its dimensions, and the rows that were published.

Each score is normalised over a range that VBench's leaderboard gives, and weighted. The weights are 1, that
of dynamic degree .5. Quality is the mean of seven dimensions, Semantic that of nine, and

    Total = (4 Quality + Semantic) / 5.

The total of long videos (VBench-Long) is the mean of six dimensions of Quality, weighted alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import NamedTuple

from pyrf.checks import is_number


class Dimension(NamedTuple):
    """What VBench measures.

    Attributes:
        lowest, highest: shares that become 0 and 1.
        weight: in the mean of its group.
    """

    lowest: float = 0.0
    highest: float = 1.0
    weight: float = 1.0


QUALITY = {
    "subject_consistency": Dimension(0.1462),
    "background_consistency": Dimension(0.2615),
    "temporal_flickering": Dimension(0.6293),
    "motion_smoothness": Dimension(0.706, 0.9975),
    "dynamic_degree": Dimension(weight=0.5),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
}
SEMANTIC = {
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(0.0, 0.8222),
    "temporal_style": Dimension(0.0, 0.364),
    "appearance_style": Dimension(0.0009, 0.2855),
    "overall_consistency": Dimension(0.0, 0.364),
}
DIMENSIONS = QUALITY | SEMANTIC
LONG = {name: dimension for name, dimension in QUALITY.items() if name != "temporal_flickering"}


@dataclass(frozen=True)
class Totals:
    """Totals in percent, by name; a group that is not whole has none.

    Attributes:
        values: "quality", "semantic" and "total"; of long videos "total" alone.
        missing: dimensions that were not scored.
    """

    values: Mapping[str, float]
    missing: tuple[str, ...] = field(default=())


def totals(scores: Mapping[str, float]) -> Totals:
    """VBench's totals.

    Args:
        scores: dimension -> share of 0..1, as VBench's own results have it.

    Raises:
        ValueError: for an unknown dimension, and a score that is no share.
    """
    _check(scores, DIMENSIONS)
    values = {
        name: _mean(scores, group)
        for name, group in (("quality", QUALITY), ("semantic", SEMANTIC))
        if group.keys() <= scores.keys()
    }
    if len(values) == 2:
        values["total"] = (4 * values["quality"] + values["semantic"]) / 5
    return Totals(values, _missing(scores, DIMENSIONS))


def long_totals(scores: Mapping[str, float]) -> Totals:
    """VBench-Long's total over six dimensions, for arguments and errors as of `totals`."""
    _check(scores, LONG)
    values = {"total": _mean(scores, LONG)} if LONG.keys() <= scores.keys() else {}
    return Totals(values, _missing(scores, LONG))


class Row(NamedTuple):
    """A published row, all in percent, drift in points.

    Attributes:
        method: whose videos.
        scores: dimension -> percent; long videos also have "drift". Not all rows are whole.
        printed: the totals that the publication prints.
    """

    method: str
    scores: Mapping[str, float]
    printed: Mapping[str, float]


def published(kind: str) -> list[Row]:
    """Rows of the Reward Forcing paper (arXiv 2512.04678): "short" are 81 frames, "long" 60 seconds."""
    text = resources.files("pyrf.evaluation.vbench").joinpath("published.json").read_text(encoding="utf-8")
    return [Row(row["method"], row["scores"], row["printed"]) for row in json.loads(text)[kind]]


def shares(row: Row) -> dict[str, float]:
    """The scores of a published row as VBench's own results have them."""
    return {name: value / 100 for name, value in row.scores.items() if name in DIMENSIONS}


def _mean(scores: Mapping[str, float], group: Mapping[str, Dimension]) -> float:
    """Weighted mean of normalised scores, in percent."""
    normalised = {name: (scores[name] - d.lowest) / (d.highest - d.lowest) for name, d in group.items()}
    weight = sum(d.weight for d in group.values())
    return 100 * sum(normalised[name] * d.weight for name, d in group.items()) / weight


def _check(scores: Mapping[str, float], known: Iterable[str]) -> None:
    known = tuple(known)
    for name, value in scores.items():
        if name not in known:
            raise ValueError(f"no dimension {name!r} here; there are {', '.join(known)}")
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(
                f"{name} must be a share of 0..1, as VBench's own results have it, got {value!r}"
            )


def _missing(scores: Mapping[str, float], known: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in known if name not in scores)
