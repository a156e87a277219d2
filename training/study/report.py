"""The study as a page: a table, the paper's orderings checked one by one, and two plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrf.files import whole_file
from pyrf.printing import counted
from pyrf.training.study.study import Results, StudySettings
from pyrf.training.study.variants import DMD, FULL, NO_SINK, STATIC, Variant

UNITS = {"dynamic": "px/s", "drift": "points"}
"""Of columns that are no shares."""


@dataclass(frozen=True)
class Ordering:
    """The paper says that `higher` has more of a column than `lower`; the figures are the paper's."""

    claim: str
    column: str
    higher: str
    lower: str
    paper: str


ORDERINGS = (
    Ordering("Re-DMD moves more than DMD", "dynamic", FULL, DMD, "64.06 > 43.75"),
    Ordering("an EMA sink moves more than a static one", "dynamic", DMD, STATIC, "43.75 > 35.15"),
    Ordering("a static sink drifts more than an EMA sink", "drift", STATIC, DMD, "2.65 > 1.77"),
    Ordering("without a sink streams drift most", "drift", NO_SINK, DMD, "5.08 > 1.77"),
    Ordering("without a sink more moves than with a static one", "dynamic", NO_SINK, STATIC, "51.56 > 35.15"),
    Ordering("alpha .9 drifts more than .999", "drift", "full, alpha .9", FULL, "3.23 > 2.51"),
    Ordering("alpha .5 drifts more than .9", "drift", "full, alpha .5", "full, alpha .9", "3.78 > 3.23"),
    Ordering("1/b = 2 moves more than 1", "dynamic", FULL, "Re-DMD, 1/b = 1", "64.06 > 54.68"),
    Ordering("1/b = 5 moves most", "dynamic", "Re-DMD, 1/b = 5", FULL, "94.53 > 64.06"),
)


def scaled(results: Results, column: str) -> tuple[float, float]:
    """Mean and standard deviation, shares in percent: over the trainings, of one training over its seeds."""
    factor = 1.0 if column in UNITS else 100.0
    per_training = [[factor * seed[column] for seed in columns] for columns in results.values()]
    values = per_training[0] if len(per_training) == 1 else [float(np.mean(seeds)) for seeds in per_training]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def verdict(named: Mapping[str, Results], ordering: Ordering) -> str:
    """Whether an ordering of the paper is seen here, by more than the spread; a single value has none.

    Two ways to stream are compared on the trainings that both have.
    """
    higher, lower = named.get(ordering.higher), named.get(ordering.lower)
    if not higher or not lower:
        return "not measured"
    if both := higher.keys() & lower.keys():
        higher, lower = ({stage: of[stage] for stage in of if stage in both} for of in (higher, lower))
    (a, spread_a), (b, spread_b) = scaled(higher, ordering.column), scaled(lower, ordering.column)
    gap, spread = a - b, max(spread_a, spread_b)
    answer = "within the spread" if abs(gap) <= spread else "reproduced" if gap > 0 else "the other way round"
    if min(_values(higher), _values(lower)) < 2:
        answer = "one seed, its spread unknown"
    return f"{answer}: {a:.2f} against {b:.2f} (spread {spread:.2f})"


def _values(results: Results) -> int:
    """How many the spread is over."""
    return len(results) if len(results) > 1 else sum(len(columns) for columns in results.values())


def table(named: Mapping[str, Results], columns: Sequence[str]) -> str:
    """Markdown, a row per variant, mean and deviation over trainings or seeds."""
    lines = [
        "| variant | trainings | " + " | ".join(f"{name}, {UNITS.get(name, '%')}" for name in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, results in named.items():
        cells = ["{:.2f} ± {:.2f}".format(*scaled(results, c)) if results else "" for c in columns]
        lines.append(f"| {name} | {len(results) or 'not trained'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_report(
    measured: Mapping[Variant, Results],
    columns: Sequence[str],
    world: str,
    settings: StudySettings,
    command: str,
    page: Path,
) -> None:
    """Write `page` (Markdown) and the plots beside it, `img/` and the page's name.

    Args:
        columns: in their order.
        world: its name.
        command: that makes the page.
    """
    named = {variant.name: results for variant, results in measured.items()}
    picture = page.parent / "img" / f"{page.stem}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot(named, picture)
    seconds = f"{settings.seconds:g}"
    orderings = "\n".join(f"| {o.claim} ({o.column}) | {o.paper} | {verdict(named, o)} |" for o in ORDERINGS)
    text = f"""# The paper's ablation, in miniature

The {world} world stands in for the paper's videos, its detector for VBench, and a small student for Wan.
What can be compared is the order of the variants, not the numbers. Columns are defined in
`training/study/study.py`. A row is a mean and a standard deviation: over trainings where there are several,
else over seeds of the noise.

    {command}

{counted(settings.prompts, "prompt")} that leave the speed open, {counted(settings.seeds, "seed")}, streams of
{seconds} s.

{table(named, columns)}

Variants of the sink differ only in how they stream: the networks were trained with the recipe's sink.

## The paper's orderings

| what the paper finds | its figures | here |
|---|---|---|
{orderings}

![dynamic and drift of the variants](img/{picture.name})
"""
    with whole_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def plot(named: Mapping[str, Results], picture: Path) -> None:
    """Bars of dynamic and drift with their spread."""
    from matplotlib.figure import Figure

    shown = {name: results for name, results in named.items() if results}
    figure = Figure(figsize=(10, 1.2 + 0.35 * len(shown)), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2, sharey=True), UNITS):
        means, spreads = zip(*(scaled(results, column) for results in shown.values()))
        axes.barh(list(shown), means, xerr=spreads, color="#4878a8")
        axes.set_xlabel(f"{column}, {UNITS[column]}")
    axes.invert_yaxis()  # shared
    with whole_file(picture) as temporary:
        figure.savefig(temporary, dpi=110)
