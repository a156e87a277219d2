"""What raters are shown: balanced, at random, shared enough to compare raters; and what is refused."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.evaluation.ab.study import QUESTIONS, Study, make_study
from pyrf.evaluation.ab.votes import Votes


def study(methods: int = 3, items: int = 12, trials: int = 20) -> Study:
    folders = {f"m{i}": f"/nowhere/m{i}" for i in range(methods)}
    return Study(folders, tuple(f"clip-{i}.mp4" for i in range(items)), QUESTIONS, trials, 0)


@given(st.integers(2, 5), st.integers(1, 9), st.integers(1, 40), st.integers(0, 50))
def test_a_plan_has_each_pair_once_and_checks_between(
    methods: int, items: int, trials: int, rater: int
) -> None:
    pairs = items * methods * (methods - 1) // 2
    s = study(methods, items, min(trials, pairs))
    plan = s.plan(rater)
    assert plan == s.plan(rater)
    shown = [t for t in plan if not t.check]
    assert len(shown) == s.trials
    assert len({(t.item, *sorted((t.a, t.b))) for t in shown}) == s.trials
    assert all(t.a != t.b for t in plan)
    assert len(plan) - len(shown) == max(1, s.trials // 10)


def test_sides_order_and_methods_are_balanced() -> None:
    s = study(items=40, trials=30)
    plans = [[t for t in s.plan(rater) if not t.check] for rater in range(60)]
    left = Counter(t.a for plan in plans for t in plan)
    whole = Counter(m for plan in plans for t in plan for m in (t.a, t.b))
    for method in s.methods:
        assert 0.45 < left[method] / whole[method] < 0.55
        assert whole[method] / (2 * 30 * 60) == pytest.approx(1 / 3, abs=0.03)
    assert plans[0] != plans[1]
    seen = [{(t.item, *sorted((t.a, t.b))) for t in plan} for plan in plans]
    assert len(set.intersection(*seen)) == 15  # what all share
    assert len(set.union(*seen)) == 120  # together they see every pair


def test_folders_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, names in ((a, "12"), (b, "23")):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.mp4").touch()
    assert make_study([a, b], (), 30, 0).items == ("2.mp4",)
    assert make_study([a, b], ["look=Which looks better?"], 30, 0).questions == {
        "look": "Which looks better?"
    }
    for folders, questions, said in (
        ([a], (), "two folders"),
        ([a, tmp_path / "c"], (), "no such folder"),
        ([a, a], (), "two folders are called a"),
        ([a, b], ["why?"], "NAME=TEXT"),
    ):
        with pytest.raises(ValueError, match=said):
            make_study(folders, questions, 30, 0)
    (b / "2.mp4").unlink()
    with pytest.raises(ValueError, match=r"no \.mp4 files of the same names"):
        make_study([a, b], (), 30, 0)


def test_votes_are_of_one_study(tmp_path: Path) -> None:
    file = tmp_path / "votes.sqlite"
    votes = Votes(file, study())
    (token,) = votes.invite(1)
    assert (votes.rater(token), votes.rater("x")) == (0, None)
    plan = votes.study.plan(0)
    answers = dict.fromkeys(QUESTIONS, "a")
    votes.keep(0, 0, plan[0], answers, 1.5)
    votes.keep(0, 0, plan[0], {**answers, "motion": "same"}, 2)
    again = Votes(file)
    assert again.study == study()
    assert [v.choice for v in again.all()] == ["a", "same", "a"]
    assert again.done(0) == 1
    with pytest.raises(ValueError, match="another study"):
        Votes(file, study(trials=10))
    with pytest.raises(ValueError, match="got 'c'"):
        votes.keep(0, 0, plan[0], {**answers, "motion": "c"}, 1)
    with pytest.raises(ValueError, match="answers must be to consistency, motion, overall"):
        votes.keep(0, 0, plan[0], {"motion": "a"}, 1)
    with pytest.raises(ValueError, match="10001 raters"):
        votes.invite(10_000)
    (tmp_path / "text").write_text("no database, but long enough to be looked at " * 20)
    with pytest.raises(ValueError, match="no file of votes"):
        Votes(tmp_path / "text")
    sqlite3.connect(tmp_path / "other").execute("create table study (one, value)")
    with pytest.raises(ValueError, match="holds no study"):
        Votes(tmp_path / "other")
