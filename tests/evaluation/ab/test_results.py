"""What votes say, checked against published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("choix", reason="from the eval extra")
pytest.importorskip("krippendorff", reason="from the eval extra")
pytest.importorskip("scipy", reason="from the eval extra")

from pyrf.evaluation.ab.results import Unit, alpha, count_wins, fit, inattentive, results, told, win_rate
from pyrf.evaluation.ab.votes import Vote

TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]


def vote(
    winner: str, loser: str, *, rater: int = 0, trial: int = 0, item: str = "i", choice: str = "a"
) -> Vote:
    return Vote(rater, trial, "overall", item, winner, loser, "", choice, 1.0, "")


def test_strengths_are_those_of_agresti() -> None:
    """Categorical Data Analysis, the American League of 1987: strengths against Baltimore's."""
    found = fit(np.array(WINS, dtype=float))
    against_baltimore = found - found[-1]
    assert against_baltimore == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0], abs=0.02)


def test_same_is_half_a_win_for_each() -> None:
    halves = [vote("x", "y"), vote("y", "x")]
    same = [vote("x", "y", choice="same"), vote("y", "x", choice="same")]
    assert (count_wins(halves, ["x", "y"]) == count_wins(same, ["x", "y"])).all()
    assert count_wins([vote("x", "y", choice="b")], ["x", "y"]).tolist() == [[0, 0], [1, 0]]


def test_intervals_are_those_of_newcombe() -> None:
    """Statistics in Medicine 17 (1998), table I, Wilson's method without a correction."""
    for wins, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ):
        votes = [vote("x", "y")] * wins + [vote("y", "x")] * (of - wins)
        found = win_rate(votes, "x", "y")
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
        assert found.decided == of


def test_effects_are_cohens() -> None:
    """Statistical Power Analysis for the Behavioral Sciences, table 6.2.2: 1.875 for .65, 1.571 for .50."""
    found = win_rate([vote("x", "y")] * 65 + [vote("y", "x", choice="a")] * 35, "x", "y")
    assert found.effect == pytest.approx(1.875 - 1.571, abs=1e-3)
    assert win_rate([vote("x", "y", choice="same")], "x", "y").same == 1
    assert math.isnan(win_rate([], "x", "y").rate)


def test_agreement_is_krippendorffs() -> None:
    """The example of his method with three coders and missing values: .691 for nominal data."""
    coders = (
        "* * * * * 3 4 1 2 1 1 3 3 * 3",
        "1 * 2 1 3 3 4 3 * * * * * * *",
        "* * 2 1 3 4 4 * 2 1 1 3 3 * 4",
    )
    ratings: dict[tuple[int, Unit], str] = {
        (coder, (f"{unit:02}",)): value
        for coder, row in enumerate(coders)
        for unit, value in enumerate(row.split())
        if value != "*"
    }
    assert alpha(ratings) == pytest.approx(0.691, abs=5e-4)
    assert math.isnan(alpha({(0, ("u",)): "1", (1, ("v",)): "2"}))


def test_raters_who_fail_checks_are_left_out() -> None:
    right = Vote(1, 3, "overall", "i", "x", "y", "b", "b", 1.0, "")
    wrong = right._replace(rater=2, choice="a")
    half = [right._replace(rater=3, trial=5), right._replace(rater=3, trial=5, question="motion", choice="a")]
    assert inattentive([right, wrong, *half]) == (2, 3)
    found = results([right, wrong, vote("x", "y", rater=1), vote("y", "x", rater=2)], ["x", "y"], ["overall"])
    assert found.left_out == (2,)
    assert found.answers["overall"].win_rates[0].decided == 1
    assert told(found)["answers"]["overall"]["agreement"] is None
    with pytest.raises(ValueError, match="no votes that count"):
        results([right], ["x", "y"], ["overall"])
