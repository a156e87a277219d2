"""The study as a page: a table, the paper's orderings checked one by one, and two plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrf.files import whole_file
from pyrf.training.study.study import COLUMNS, VARIANTS, StudySettings, Variant

Columns = list[dict[str, float]]
"""One dictionary per seed."""
UNITS = {"dynamic": "px/s", "drift": "points"} | dict.fromkeys(COLUMNS[2:], "%")


@dataclass(frozen=True)
class Ordering:
    """The paper says that `higher` has more of a column than `lower`; the figures are the paper's."""

    claim: str
    column: str
    higher: str
    lower: str
    paper: str


FULL, DMD, STATIC, NO_SINK = (variant.name for variant in VARIANTS[:4])
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


def scaled(columns: Columns, column: str) -> tuple[float, float]:
    """Mean and standard deviation over the seeds, shares in percent."""
    factor = 1.0 if column in ("dynamic", "drift") else 100.0
    values = factor * np.array([seed[column] for seed in columns])
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def verdict(results: dict[str, Columns | None], ordering: Ordering) -> str:
    """Whether an ordering of the paper is seen here, by more than the seeds' spread; one seed has none."""
    higher, lower = results.get(ordering.higher), results.get(ordering.lower)
    if not higher or not lower:
        return "not measured"
    (a, spread_a), (b, spread_b) = scaled(higher, ordering.column), scaled(lower, ordering.column)
    gap, spread = a - b, max(spread_a, spread_b)
    answer = "within the spread" if abs(gap) <= spread else "reproduced" if gap > 0 else "the other way round"
    if len(higher) < 2:
        answer = "one seed, its spread unknown"
    return f"{answer}: {a:.2f} against {b:.2f} (spread {spread:.2f})"


def table(results: dict[str, Columns | None]) -> str:
    """Markdown, a row per variant, mean and deviation over seeds."""
    lines = [
        "| variant | " + " | ".join(f"{name}, {UNITS[name]}" for name in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name, columns in results.items():
        if columns is None:
            cells = ["not trained", *[""] * (len(COLUMNS) - 1)]
        else:
            cells = ["{:.2f} ± {:.2f}".format(*scaled(columns, column)) for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_report(results: dict[Variant, Columns | None], settings: StudySettings, page: Path) -> None:
    """Write `page` (Markdown) and the plots beside it, `img/study.png`."""
    named = {variant.name: columns for variant, columns in results.items()}
    picture = page.parent / "img" / "study.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot(named, picture)
    seconds = f"{settings.seconds:g}"
    command = (
        f"pyrf eval study --out runs/tiny --prompts {settings.prompts} --seconds {seconds} "
        f"--seeds {settings.seeds} --page {page.name}"
    )
    orderings = "\n".join(f"| {o.claim} ({o.column}) | {o.paper} | {verdict(named, o)} |" for o in ORDERINGS)
    text = f"""# The paper's ablation, in miniature

The shapes world stands in for the paper's videos, its detector for VBench, and the tiny student for Wan:
what can be compared is the order of the variants, not the numbers. Columns are defined in
`training/study/study.py`. A row is the mean and the standard deviation over seeds of the noise; every variant
was trained once.

    {command}

{settings.prompts} prompts that leave the speed open, {settings.seeds} seeds, streams of {seconds} s.

{table(named)}

Variants of the sink differ only in how they stream: the networks were trained with an EMA sink of alpha .999.

## The paper's orderings

| what the paper finds | its figures | here |
|---|---|---|
{orderings}

![dynamic and drift of the variants](img/study.png)
"""
    with whole_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def plot(results: dict[str, Columns | None], picture: Path) -> None:
    """Bars of dynamic and drift with the seeds' spread."""
    from matplotlib.figure import Figure

    shown = {name: columns for name, columns in results.items() if columns}
    figure = Figure(figsize=(10, 1.2 + 0.35 * len(shown)), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2, sharey=True), COLUMNS[:2]):
        means, spreads = zip(*(scaled(columns, column) for columns in shown.values()))
        axes.barh(list(shown), means, xerr=spreads, color="#4878a8")
        axes.set_xlabel(f"{column}, {UNITS[column]}")
    axes.invert_yaxis()  # shared
    with whole_file(picture) as temporary:
        figure.savefig(temporary, dpi=110)
