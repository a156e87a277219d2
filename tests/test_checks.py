"""Checks of numbers name what they refuse."""

from typing import Any

import numpy as np
import pytest

from pyrf.checks import check_positive, check_whole
from pyrf.config import LatentSize


@pytest.mark.parametrize("value", [1, np.int64(7), 2**20])
def test_whole_numbers_come_back_as_ints(value: Any) -> None:
    number = check_whole("n", value)
    assert number == value
    assert type(number) is int


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "n must be a whole number, got True"),
        (3.0, "n must be a whole number, got 3.0"),
        ("3", "n must be a whole number, got '3'"),
        (None, "n must be a whole number, got None"),
        (0, "n must be at least 1, got 0"),
        (2**20 + 1, "n must be at most 1048576, got 1048577"),
    ],
)
def test_others_are_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_whole("n", value)


def test_bounds_may_be_left_out() -> None:
    assert check_whole("n", -(2**70), least=None) == -(2**70)
    assert check_whole("n", 2**70, most=None) == 2**70


@pytest.mark.parametrize("value", [0, -1.5, float("nan"), float("inf"), True, "1"])
def test_only_finite_numbers_above_zero_are_positive(value: object) -> None:
    check_positive("x", 1e-9)
    with pytest.raises(ValueError, match="x must be a positive number"):
        check_positive("x", value)


def test_latents_split_into_tokens() -> None:
    size = LatentSize(60, 104)
    assert (size.rows, size.columns, size.tokens) == (30, 52, 1560)
    height, width = size
    assert size == (height, width) == (60, 104)


@pytest.mark.parametrize("sides", [(3, 4), (4, 5), (0, 4), (-2, 4)])
def test_odd_and_empty_latents_are_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive, even height and width"):
        LatentSize(*sides)
