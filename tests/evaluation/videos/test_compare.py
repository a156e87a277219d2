"""Folders compared: scipy's own examples, and what intervals and tests say of known differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy", reason="tests are scipy's, from the eval extra")

from pyrf.evaluation.videos.compare import adjusted, difference, interval


def named(values: list[float], prefix: str = "v") -> dict[str, float]:
    return {f"{prefix}{i}": value for i, value in enumerate(values)}


def test_pairs_are_tested_by_signed_ranks() -> None:
    """The example of scipy's `wilcoxon`: heights of crossed and self-fertilised plants."""
    deltas = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    found = difference(named([0.0] * 15), named([float(d) for d in deltas]))
    assert found.p == pytest.approx(0.041259765625)
    assert found.pairs == 15
    assert found.interval.mean == pytest.approx(np.mean(deltas))
    assert found.interval.low < found.interval.mean < found.interval.high


def test_other_names_are_not_paired() -> None:
    """The example of scipy's `mannwhitneyu`: ages at which diabetes was found."""
    males, females = [19.0, 22, 16, 29, 24], [20.0, 11, 17, 12]
    found = difference(named(females, "f"), named(males, "m"))
    assert found.p == pytest.approx(0.1111111111111111)
    assert found.pairs == 0
    assert found.interval.mean == pytest.approx(7)


def test_many_tests_are_adjusted() -> None:
    """The example of scipy's `false_discovery_control`, from Benjamini and Hochberg (1995)."""
    ps = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    ps += [0.4262, 0.5719, 0.6528, 0.7590, 1.000]
    found = adjusted([*ps, math.nan])
    assert found[:4] == pytest.approx([0.0015, 0.003, 0.0095, 0.035625])
    assert math.isnan(found[-1])


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        found = interval(named(list(rng.normal(3, 1, 40))))
        held += found.low < 3 < found.high
    assert 88 <= held <= 100


def test_nothing_to_compare_is_no_difference() -> None:
    same = difference(named([1.0, 2.0, 3.0]), named([1.0, 2.0, 3.0]))
    assert math.isnan(same.p)
    assert tuple(same.interval) == (0, 0, 0)
    alone = interval({"a": 2.0})
    assert alone.mean == 2
    assert math.isnan(alone.low)
