"""The bootstrap against scipy's, of numbers and of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pyrf.evaluation.bootstrap import Array, bootstrap_distribution, percentile_interval


def drawn(statistic: Callable[..., Any], *samples: Array) -> Array:
    return bootstrap_distribution(statistic, *samples, resamples=500, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "statistic",
    [lambda a, axis=-1: np.mean(a, axis), lambda a, b, axis=-1: np.mean(a, axis) - np.mean(b, axis)],
)
def test_numbers_are_those_of_scipy(statistic: Callable[..., Any]) -> None:
    """Of one sample, and of two that are drawn apart."""
    stats = pytest.importorskip("scipy.stats", reason="the oracle, from the eval extra")
    rng = np.random.default_rng(1)
    samples = [rng.normal(3, 2, 30), rng.normal(1, 2, 20)][: statistic.__code__.co_argcount - 1]
    found = stats.bootstrap(
        samples, statistic, n_resamples=500, method="percentile", rng=np.random.default_rng(0)
    )
    distribution = drawn(statistic, *samples)
    assert distribution.tolist() == found.bootstrap_distribution.tolist()
    assert percentile_interval(distribution) == pytest.approx(tuple(found.confidence_interval), rel=1e-12)


def test_a_statistic_may_be_an_array() -> None:
    rows = np.random.default_rng(2).normal(size=(12, 3))
    distribution = drawn(lambda sample: sample.mean(0), rows)
    assert distribution.shape == (500, 3)
    low, high = percentile_interval(distribution)
    for column in range(3):
        one = percentile_interval(distribution[:, column])
        assert (low[column], high[column]) == one
        assert low[column] < rows[:, column].mean() < high[column]
