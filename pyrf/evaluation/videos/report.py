"""A report on folders of videos: report.json, index.html, and a page with curves per video."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pyrf.evaluation.videos.compare import Difference, Interval, adjusted, difference, interval
from pyrf.evaluation.videos.measures import UNITS, Measured
from pyrf.extras import needs

Folder = Mapping[str, Mapping[str, Measured]]
"""Video -> measure -> what was measured."""

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{padding:.2rem .6rem;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}img{max-width:100%}pre{overflow-x:auto}"
)


def summarise(folders: Mapping[str, Folder]) -> dict[str, Any]:
    """What report.json holds: values of every video, means, and differences from the first folder."""
    values = {
        folder: {
            measure: {name: video[measure].value for name, video in videos.items()}
            for measure in next(iter(videos.values()))
        }
        for folder, videos in folders.items()
    }
    reference, *others = values
    differences = {
        folder: {m: difference(values[reference][m], values[folder][m]) for m in values[folder]}
        for folder in others
    }
    tests = [d for found in differences.values() for d in found.values()]
    ps = iter(adjusted([d.p for d in tests]))
    return {
        "units": {measure: UNITS[measure] for measure in values[reference]},
        "videos": values,
        "means": {f: {m: _json(interval(v)) for m, v in found.items()} for f, found in values.items()},
        "against": reference,
        "differences": {
            folder: {m: {**_difference(d), "adjusted_p": _finite(next(ps))} for m, d in found.items()}
            for folder, found in differences.items()
        },
    }


def table(summary: Mapping[str, Any]) -> str:
    """Means and differences as text."""
    lines = []
    for measure, unit in summary["units"].items():
        lines.append(f"{measure}, {unit}")
        for folder, means in summary["means"].items():
            line = f"  {folder:<30} {_interval(means[measure])}"
            if found := summary["differences"].get(folder):
                d = found[measure]
                how = f"{d['pairs']} pairs" if d["pairs"] else "unpaired"
                line += f"   difference {_interval(d)}, p {_p(d['adjusted_p'])} ({how})"
            lines.append(line)
    return "\n".join(lines)


def write_report(folders: Mapping[str, Folder], summary: Mapping[str, Any], out: Path) -> None:
    """Write all files into a folder; the pages of a report that is there already go.

    Raises:
        ValueError: when matplotlib is missing.
        OSError: when a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("video-*-*.*"):
        old.unlink()
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    _plot_means(summary, out / "means.png")
    links = []
    for number, (folder, videos) in enumerate(folders.items()):
        for index, (name, measured) in enumerate(videos.items()):
            page = f"video-{number}-{index}"
            _plot_curves(measured, out / f"{page}.png")
            cells = [(m, f"{v.value:.4g}", UNITS[m]) for m, v in measured.items()]
            body = f'<p><a href="index.html">all videos</a></p><img src="{page}.png" alt="curves over time">'
            html = _page(f"{folder}: {name}", body + _rows(["measure", "value", "unit"], cells))
            (out / f"{page}.html").write_text(html, encoding="utf-8")
            values = [f"{v.value:.4g}" for v in measured.values()]
            links.append((folder, f'<a href="{page}.html">{escape(name)}</a>', *values))
    measures = list(summary["units"])
    body = (
        f'<img src="means.png" alt="means with intervals"><pre>{escape(table(summary))}</pre>'
        "<p>Intervals are bootstrap ones of 95 %. P values are adjusted for the number of tests.</p>"
        + _rows(["folder", "video", *measures], links, links=True)
    )
    (out / "index.html").write_text(_page("Videos", body), encoding="utf-8")


def _plot_means(summary: Mapping[str, Any], path: Path) -> None:
    with needs("eval", "a report"):
        from matplotlib.figure import Figure

    measures = list(summary["units"])
    figure = Figure(figsize=(2.4 * len(measures), 3.5))
    figure.subplots_adjust(left=0.04, right=0.98, bottom=0.2, wspace=0.4)
    for axes, measure in zip(figure.subplots(1, len(measures)), measures):
        for x, means in enumerate(summary["means"].values()):
            found = means[measure]
            low, high = (found["mean"] if found[end] is None else found[end] for end in ("low", "high"))
            axes.plot([x, x], [low, high], color=f"C{x}")
            axes.plot([x], [found["mean"]], "o", color=f"C{x}")
        axes.set_title(f"{measure}, {summary['units'][measure]}", fontsize=9)
        axes.set_xticks(
            range(len(summary["means"])), [Path(name).name for name in summary["means"]], fontsize=8
        )
    figure.savefig(path, dpi=100)


def _plot_curves(measured: Mapping[str, Measured], path: Path) -> None:
    with needs("eval", "a report"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.4 * len(measured)))
    figure.subplots_adjust(left=0.1, right=0.98, top=0.98, bottom=0.08)
    for axes, (name, found) in zip(figure.subplots(len(measured), 1, sharex=True), measured.items()):
        axes.plot(
            [found.begin + i * found.seconds for i in range(len(found.curve))], found.curve, linewidth=1
        )
        axes.set_ylabel(name, fontsize=8)
    axes.set_xlabel("seconds")
    figure.savefig(path, dpi=80)


def _page(title: str, body: str) -> str:
    view = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"<head>{view}<title>{escape(title)}</title><style>{STYLE}</style></head>"
    content = f"<body><h1>{escape(title)}</h1>{body}</body>"
    return f'<!doctype html>\n<html lang="en">{head}{content}</html>\n'


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]], *, links: bool = False) -> str:
    """A table; with `links` the second cell is HTML already."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{c if links and i == 1 else escape(c)}</td>' for i, c in enumerate(row))}</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json(found: Interval) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in found._asdict().items()}


def _difference(found: Difference) -> dict[str, Any]:
    return {**_json(found.interval), "p": _finite(found.p), "pairs": found.pairs}


def _interval(found: Mapping[str, float | None]) -> str:
    if found["low"] is None:
        return f"{found['mean']:.4g}"
    return f"{found['mean']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
