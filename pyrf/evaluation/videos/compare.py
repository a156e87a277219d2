"""Folders of videos against the first of them: means with intervals, differences, and tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from pyrf.evaluation.bootstrap import Array, bootstrap_distribution, percentile_interval
from pyrf.extras import needs

Values = Mapping[str, float]
"""A measure's values by the names of videos."""
RESAMPLES = 5000


class Interval(NamedTuple):
    """A mean with its bootstrap interval of 95 %; NaN ends where there is one value alone."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """A folder less the first one.

    Attributes:
        interval: of the mean difference.
        p: of Wilcoxon's signed ranks over pairs, else of Mann and Whitney; NaN where all values are one.
        pairs: videos of the same name in both; 0 where the names differ and nothing is paired.
    """

    interval: Interval
    p: float
    pairs: int


def interval(values: Values) -> Interval:
    """The mean of a folder."""
    return _mean(np.array(list(values.values()), dtype=np.float64))


def difference(reference: Values, other: Values) -> Difference:
    """Compare two folders; paired when each video of one has a video of the same name in the other.

    Raises:
        ValueError: when scipy is missing.
    """
    with needs("eval", "comparing videos"):
        from scipy import stats

    if reference.keys() == other.keys():
        deltas = np.array([other[name] - reference[name] for name in sorted(other)], dtype=np.float64)
        p = float(stats.wilcoxon(deltas).pvalue) if deltas.any() else math.nan
        return Difference(_mean(deltas), p, len(deltas))
    one, two = (np.array(list(v.values()), dtype=np.float64) for v in (reference, other))
    p = float(stats.mannwhitneyu(two, one).pvalue) if np.ptp(np.concatenate([one, two])) else math.nan
    if min(len(one), len(two)) < 2:
        return Difference(Interval(float(two.mean() - one.mean()), math.nan, math.nan), p, 0)
    return Difference(_bootstrap(lambda a, b: float(a.mean() - b.mean()), two, one), p, 0)


def adjusted(ps: list[float]) -> list[float]:
    """P values of many tests, adjusted for the false discovery rate (Benjamini and Hochberg); NaN stays."""
    with needs("eval", "comparing videos"):
        from scipy import stats

    known = [p for p in ps if not math.isnan(p)]
    found = iter(stats.false_discovery_control(known) if known else ())
    return [math.nan if math.isnan(p) else float(next(found)) for p in ps]


def _mean(values: Array) -> Interval:
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    if not np.ptp(values):
        return Interval(mean, mean, mean)
    return _bootstrap(lambda drawn: float(drawn.mean()), values)


def _bootstrap(statistic: Callable[..., float], *samples: Array) -> Interval:
    drawn = bootstrap_distribution(statistic, *samples, resamples=RESAMPLES, rng=np.random.default_rng(0))
    low, high = percentile_interval(drawn)
    return Interval(statistic(*samples), float(low), float(high))
