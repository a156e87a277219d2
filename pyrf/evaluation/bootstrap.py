"""The bootstrap: how a statistic spreads when the rows that it is taken of are drawn again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def bootstrap_distribution(
    statistic: Callable[..., Any], *samples: Array, resamples: int, rng: np.random.Generator
) -> Array:
    """The statistic of rows that are drawn with replacement, as many of each sample as it has.

    Args:
        statistic: takes as many arrays as there are samples; a number, or an array.
        samples: [rows, ...] each; drawn apart from each other.

    Returns:
        [resamples], or [resamples, ...] of a statistic that is an array.
    """
    places = [rng.integers(len(sample), size=(resamples, len(sample))) for sample in samples]
    drawn = [statistic(*(sample[rows] for sample, rows in zip(samples, draw))) for draw in zip(*places)]
    return np.array(drawn, dtype=np.float64)


def percentile_interval(distribution: Array) -> tuple[Any, Any]:
    """The ends of the middle 95 % of [resamples, ...]: numbers, or an array each."""
    low, high = np.percentile(distribution, [2.5, 97.5], axis=0)
    return low, high
