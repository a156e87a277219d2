"""Measures as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyrf.evaluation.report.measures import Measure


def table(parts: Mapping[str, Sequence[Measure]]) -> str:
    """A Markdown table of the measures, part by part."""
    lines = ["| part | measure | value | 95 % | clips | bar |", "|---|---|---|---|---|---|"]
    for part, measures in parts.items():
        for m in measures:
            interval = "" if m.low is None or m.high is None else f"{_shown(m, m.low)} to {_shown(m, m.high)}"
            lines.append(f"| {part} | {m.name} | {_shown(m, m.value)} | {interval} | {m.clips} | {_bar(m)} |")
    return "\n".join(lines)


def _bar(measure: Measure) -> str:
    bars = (("at least", measure.at_least), ("at most", measure.at_most))
    return ", ".join(f"{word} {_shown(measure, bar)}" for word, bar in bars if bar is not None)


def _shown(measure: Measure, value: float) -> str:
    return f"{100 * value:.1f} %" if measure.unit == "share" else f"{value:.2f}"
