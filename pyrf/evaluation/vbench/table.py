"""Scores and totals as a table, beside published rows, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyrf.evaluation.vbench.clips import Drift
from pyrf.evaluation.vbench.totals import (
    DIMENSIONS,
    LONG,
    Row,
    Totals,
    long_totals,
    published,
    shares,
    totals,
)

SHORT_NOTES = (
    "Left out: VBench's filter of static clips, and 20 of the 25 videos per prompt of temporal_flickering.",
)
LONG_NOTES = (
    "Clips of 2 s are scored each by itself: VBench-Long's default weights, without scores between clips.",
)


def table(
    scores: Mapping[str, float], ours: Totals, drift: Drift | None = None, *, long: bool = False
) -> str:
    """Lines of Markdown.

    Args:
        scores: dimension -> share of 0..1.
        ours: the totals of these scores.
        drift: of long videos.
        long: whether they are long.
    """
    rows = published("long" if long else "short")
    lines = _line(["", "here", *(f"{row.method} (paper)" for row in rows)])
    lines += _line(["---"] * (len(rows) + 2))
    for name in LONG if long else DIMENSIONS:
        lines += _line([name, _percent(scores, name), *(_number(row.scores.get(name)) for row in rows)])
    for name in ("total",) if long else ("quality", "semantic", "total"):
        lines += _line([name, _number(ours.values.get(name)), *(_total(row, name, long) for row in rows)])
    if drift is not None:
        printed = (f"{row.scores['drift']:.3f}" if "drift" in row.scores else "" for row in rows)
        lines += _line(["drift, deviation over clips", f"{drift.deviation:.3f}", *printed])
        lines += _line(["drift, first against last 5 s", f"{drift.ends:.3f}", *([""] * len(rows))])
    lines += ["", "Totals of the paper are as printed; in brackets is what its row comes to."]
    if ours.missing:
        lines.append(f"Not scored: {', '.join(ours.missing)}.")
    return "\n".join([*lines, *(LONG_NOTES if long else SHORT_NOTES)])


def _line(cells: Iterable[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _percent(scores: Mapping[str, float], name: str) -> str:
    return _number(100 * scores[name]) if name in scores else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _total(row: Row, name: str, long: bool) -> str:
    own = shares(row)
    if long:
        own = {key: value for key, value in own.items() if key in LONG}
    comes_to = (long_totals if long else totals)(own).values.get(name)
    brackets = "" if comes_to is None else f"({comes_to:.2f})"
    return f"{_number(row.printed.get(name))} {brackets}".strip()
