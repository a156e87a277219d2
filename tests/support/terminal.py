"""Pictures of a terminal, for the documentation: what commands really printed, as an SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100
"""Columns of a picture."""
LINE = re.compile(r'<text [^>]*clip-path="[^"]+line-(\d+)\)"[^>]*>(.*?)</text>')


def terminal(shown: Sequence[tuple[str, str]]) -> str:
    """The picture of commands and of what each printed, an SVG.

    Args:
        shown: each command, and what it wrote; colours of a terminal are kept.
    """
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for command, output in shown:
        console.print(Text(f"$ {command}", "bold green"))
        if output:
            console.print(Text.from_ansi(output.rstrip("\n")))
    svg = console.export_svg(title="", unique_id="terminal")
    # A page loads nothing from elsewhere, and neither do its pictures.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def lines_of(picture: Path) -> list[str]:
    """The lines that a picture shows."""
    rows: dict[int, str] = {}
    for row, text in LINE.findall(picture.read_text()):
        rows[int(row)] = rows.get(int(row), "") + unescape(text).replace("\xa0", " ")
    return [rows[row].rstrip() for row in sorted(rows)]
