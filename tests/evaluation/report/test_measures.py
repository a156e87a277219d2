"""Intervals against published values, and pixels that are known."""

import numpy as np
import pytest

from pyrf.evaluation.report.measures import Measure, share, wilson
from pyrf.evaluation.report.pixels import Borders, differences, gradient_energy, is_blown_up, look
from pyrf.evaluation.report.table import table
from pyrf.worlds.choice import WORLDS


@pytest.mark.parametrize(
    ("held", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_newcombe_1998(held: int, count: int, low: float, high: float) -> None:
    """Table I of "Two-sided confidence intervals for the single proportion", method 3."""
    assert wilson(held, count) == pytest.approx((low, high), abs=5e-5)


def test_intervals_hold_their_share_and_stay_within_0_and_1() -> None:
    for held in range(11):
        low, high = wilson(held, 10)
        assert 0 <= low <= held / 10 <= high + 1e-12
        assert high <= 1
        assert wilson(10 - held, 10) == pytest.approx((1 - high, 1 - low))


def test_a_table_shows_intervals_and_bars() -> None:
    text = table({"a": [share("held", [True, False], at_least=0.9), Measure("edge", 1.25, 3, "ratio")]})
    assert "| a | held | 50.0 % | 9.5 % to 90.5 % | 2 | at least 90.0 % |" in text
    assert "| a | edge | 1.25 |  | 3 |  |" in text


@pytest.mark.parametrize("world", WORLDS)
def test_true_frames_are_not_blown_up(world: str) -> None:
    scenes = [WORLDS[world]().scene(seed) for seed in range(20)]
    assert not any(is_blown_up(scene.render(0, 1)[0]) for scene in scenes)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (225, 40, 40), (90, 90, 90)])
def test_plain_frames_are_blown_up(color: tuple[int, int, int]) -> None:
    assert is_blown_up(np.full((8, 8, 3), color, np.uint8))


def test_saturated_frames_are_blown_up() -> None:
    checks = np.zeros((8, 8, 3), np.uint8)
    checks[::2] = 255
    assert is_blown_up(checks)


def test_differences_gradients_and_looks() -> None:
    frames = np.zeros((3, 6, 4, 3), np.uint8)
    frames[1:] = 10
    frames[2, :2] = 40
    assert differences(frames).tolist() == [10, 10]
    assert gradient_energy(frames[:2]) == 0
    assert gradient_energy(frames[2:]) == pytest.approx(30**2 / 5)
    assert look(frames[2:]).tolist() == [[40] * 3, [20] * 3]


def test_borders_of_clips_that_stand_still_have_a_ratio() -> None:
    borders = Borders()
    borders.add(np.zeros((8, 4, 4, 3), np.uint8), [4])
    assert borders.ratio() == 0
