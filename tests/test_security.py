"""docs/security.md: every test that it names exists, and no bound of the server is left out."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pyrf.serve.settings import ServeSettings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("## Bounds")[1].splitlines()
    if line.startswith("|") and "---" not in line and not line.startswith("| bound ")
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_its_test_exists(row: list[str]) -> None:
    match = re.fullmatch(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", row[-1])
    assert match is not None, f"{row[0]} names no test"
    tree = ast.parse((ROOT / match[1]).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert match[2] is None or match[2] in functions, f"{match[1]} has no {match[2]}"


def bounds() -> list[str]:
    """The settings that are numbers."""
    return [field.name for field in fields(ServeSettings) if re.search(r"\b(int|float)\b", str(field.type))]


def test_bounds_are_found() -> None:
    assert {"max_sessions", "grace_s", "max_pixels"} <= set(bounds())


@pytest.mark.parametrize("name", bounds())
def test_every_bound_of_the_settings_is_told(name: str) -> None:
    rows = [row for row in ROWS if row[0].startswith(f"`{name}`")]
    assert len(rows) == 1, f"docs/security.md has {len(rows)} rows of {name}"
    flag = next(field for field in fields(ServeSettings) if field.name == name).metadata["flag"]
    assert rows[0][2].strip("`") == ("" if flag is None else flag.name)
