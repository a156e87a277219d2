"""Totals of VBench: the published ones come out of the published rows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.evaluation.vbench.table import table
from pyrf.evaluation.vbench.totals import (
    DIMENSIONS,
    LONG,
    QUALITY,
    SEMANTIC,
    long_totals,
    published,
    shares,
    totals,
)

SHORT = {row.method: row for row in published("short")}
EVERY = st.fixed_dictionaries({name: st.floats(0, 1) for name in DIMENSIONS})


def test_the_dimensions_are_sixteen() -> None:
    assert (len(QUALITY), len(SEMANTIC), len(LONG)) == (7, 9, 6)
    assert sum(d.weight for d in QUALITY.values()) == 6.5
    assert sum(d.weight for d in LONG.values()) == 5.5


def test_published_totals_come_out() -> None:
    expected = {
        "Reward Forcing": {"total": 84.13, "quality": 84.84, "semantic": 81.32},
        "LongLive": {"total": 83.22},
        "Self Forcing": {"total": 83.80},
    }
    assert {name: dict(row.printed) for name, row in SHORT.items()} == expected
    for name, printed in expected.items():
        found = totals(shares(SHORT[name]))
        assert not found.missing
        for kind, value in printed.items():
            assert found.values[kind] == pytest.approx(value, abs=0.02), (name, kind)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_each_dimension_counts(name: str) -> None:
    """A fault in one range or weight moves the total by more than what is tolerated above."""
    d = DIMENSIONS[name]
    ends = [totals({**shares(SHORT["LongLive"]), name: share}) for share in (d.lowest, d.highest)]
    group, size, part = ("quality", 6.5, 0.8) if name in QUALITY else ("semantic", 9, 0.2)
    rise = 100 * d.weight / size
    assert ends[1].values[group] - ends[0].values[group] == pytest.approx(rise)
    assert ends[1].values["total"] - ends[0].values["total"] == pytest.approx(part * rise)


@given(EVERY, st.sampled_from(list(DIMENSIONS)), st.floats(0, 1))
def test_totals_rise_with_scores(scores: dict[str, float], name: str, value: float) -> None:
    low, high = sorted([scores[name], value])
    assert totals({**scores, name: low}).values["total"] <= totals({**scores, name: high}).values["total"]


def test_a_total_needs_every_dimension() -> None:
    scores = shares(SHORT["Self Forcing"])
    del scores["color"]
    found = totals(scores)
    assert found.values.keys() == {"quality"}
    assert found.missing == ("color",)
    assert "Not scored: color." in table(scores, found)


def test_what_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share of 0\.\.1"):
        totals({"color": 89.42})
    with pytest.raises(ValueError, match="no dimension 'temporal_flickering'"):
        long_totals({"temporal_flickering": 0.9})
    with pytest.raises(ValueError, match="color must be a share"):
        totals({"color": math.nan})


def test_the_long_total_is_quality_without_flicker() -> None:
    """Quality x 6.5 is the long total x 5.5 and flicker's part."""
    scores = shares(SHORT["Reward Forcing"])
    flicker = (scores["temporal_flickering"] - 0.6293) / (1 - 0.6293)
    long = long_totals({name: scores[name] for name in LONG}).values["total"]
    assert totals(scores).values["quality"] * 6.5 == pytest.approx(long * 5.5 + 100 * flicker)


def test_published_long_rows_say_what_is_known() -> None:
    """No row is whole, so no total is claimed to come out."""
    rows = {row.method: row for row in published("long")}
    assert rows["SkyReels-V2"].printed == {"total": 75.94}
    assert rows["Self Forcing"].printed == {"total": 79.34}
    assert rows["Reward Forcing"].scores["drift"] == 2.505
    assert all(not long_totals(shares(row)).values for row in rows.values())


def test_the_table_has_printed_totals_and_what_rows_come_to() -> None:
    scores = shares(SHORT["Reward Forcing"])
    text = table(scores, totals(scores))
    assert "| total | 84.13 | 84.13 (84.13) | 83.22 (83.21) | 83.80 (83.80) |" in text
    assert "filter of static clips" in text
