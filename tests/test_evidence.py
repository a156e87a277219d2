"""Figures in README and docs against what commands wrote: docs/figures/ has the JSON that they printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrf.evaluation.vbench.totals import published, shares, totals

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs/figures"
README = (ROOT / "README.md").read_text()
EVIDENCE = (ROOT / "docs/evidence.md").read_text()


def attributes(result: dict[str, Any]) -> str:
    """With three digits, those that are 0 too."""
    shares = (100 * result[name] for name in ("color", "shape", "motion"))
    return " / ".join(f"{share:#.3g}".rstrip(".") for share in shares) + " %"


ROWS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "colour / shape / motion right after 5 s": ("tiny-5s", attributes),
    "memory after 1,900 chunks against the first hundred": (
        "tiny-memory",
        lambda result: f"{result['rss_change_percent']:+.2f} %",
    ),
    "the same after 60 s": ("tiny-60s", attributes),
    "its codec alone on held-out clips": ("tiny-codec", lambda result: f"{result['psnr_db']:.1f} dB"),
}
"""Label of a README row -> the file that it is from, and how its cell is written."""

NOT_STORED = {
    "end to end, Wan VAE",
    "end to end, TAEHV",
    "network calls alone",
    "first frame after load",
    "end to end",
    "end to end, range over runs",
    "chunk of 12 frames, p50 / p99",
    "cold start to the first frame on disk",
    "chunk time after 1,900 chunks against a new stream",
    "against the literal reference loop",
    "the same with ONNX Runtime",
    "time against bare products and attention",
}
"""Rows whose JSON was not kept when they were measured. A row that is measured again leaves this list."""


def rows(text: str) -> list[list[str]]:
    """Cells of all rows of tables, but headers and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def test_every_figure_of_the_readme_is_held_or_said_not_to_be() -> None:
    section = README.split("## Figures")[1].split("\n## ")[0]
    labels = {cells[0] for cells in rows(section)} - {"what"}
    assert labels == ROWS.keys() | NOT_STORED
    assert ROWS.keys().isdisjoint(NOT_STORED)


@pytest.mark.parametrize("label", ROWS)
def test_figures_of_the_readme_are_what_was_printed(label: str) -> None:
    name, written = ROWS[label]
    stored = json.loads((FIGURES / f"{name}.json").read_text())
    assert stored.keys() == {"command", "date", "machine", "versions", "result"}
    table = rows(README)
    index = next(index for index, cells in enumerate(table) if cells[0] == label)
    assert table[index][1] == written(stored["result"])
    told = next(cells[2] for cells in table[index::-1] if cells[2] != "the same")
    assert stored["command"].startswith(told.strip("`"))


def test_every_stored_figure_is_shown() -> None:
    assert {path.stem for path in FIGURES.iterdir()} == {name for name, _ in ROWS.values()}


def test_vbench_rows_of_the_docs_come_out() -> None:
    table = (ROOT / "docs/measuring.md").read_text().split("| row of the paper |")[1].split("\n\n")[0]
    shown = rows(table)
    assert len(shown) == 5
    known = {row.method: row for row in published("short")}
    for label, printed, comes_to in shown:
        method, kind = label.rsplit(", ", 1)
        assert float(printed) == known[method].printed[kind]
        assert comes_to == f"{totals(shares(known[method])).values[kind]:.2f}"


def test_orderings_are_those_of_the_study() -> None:
    study = {cells[0]: cells for cells in rows((ROOT / "docs/study.md").read_text())}
    found = [cells for cells in rows(EVIDENCE) if " > " in cells[1]]
    assert len(found) == 9
    for claim, paper, verdict in found:
        of_study = next(cells for label, cells in study.items() if label.startswith(claim))
        assert of_study[1] == paper
        assert of_study[2].startswith(verdict)


def test_speeds_are_those_of_readme_and_benchmarks() -> None:
    told = README + (ROOT / "docs/benchmarks.md").read_text()
    table = EVIDENCE.split("### Speed")[1].split("\n### ")[0]
    shown = [cells for cells in rows(table) if len(cells) == 5 and cells[0] != "claim"]
    assert len(shown) > 7
    for _, figure, spread, *_ in shown:
        for number in re.findall(r"\d+\.\d+|\d{2,}", f"{figure} {spread}"):
            assert number in told, (figure, spread)
