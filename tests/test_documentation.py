"""What README and docs/ say can be done: links lead somewhere, commands exist, the code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pyrf.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:pyrf|export|training|tests|benchmarks|csrc|docs|examples)/[\w./-]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND = re.compile(r"^(pyrf|python|pytest|make) (?!\.)\S")


def prose(page: Path) -> str:
    return BLOCKS.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub names them."""
    names = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(page)))
    return {name.replace(" ", "-") for name in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    text = page.read_text()
    paths = set(
        re.findall(r"`((?:pyrf|export|training|tests|benchmarks|csrc|docs|examples)/[\w./-]+)`", text)
    )
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


def commands(page: Path) -> list[list[str]]:
    """Every command that a page shows, in blocks, tables and text; of a pipe or torchrun what it runs."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"^ {4,}(?:torchrun .*--no-python +)?([^|\n]+)|`([^`\n]+)`", text, re.MULTILINE)
    return [shlex.split(a or b, comments=True) for a, b in found if COMMAND.match(a or b)]


COMMANDS = sorted({(page.name, *words) for page in PAGES for words in commands(page)})


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:60])
def test_commands_exist(words: tuple[str, ...]) -> None:
    """`pyrf`: the command and its options are understood. Else: the file, module or target is there."""
    _, program, *arguments = words
    if program == "pyrf":
        asked = CliRunner().invoke(app, [*arguments, "--help"])  # shown once the line before it is understood
        assert asked.exit_code == 0, asked.output
    elif program == "make":
        assert arguments[0] in (ROOT / "Makefile").read_text().split(".PHONY:")[1].splitlines()[0].split()
    else:
        files = [word for word in arguments if word.endswith(".py") or word.startswith("tests/")]
        assert all((ROOT / file).exists() for file in files), files


class Enough(Exception):  # noqa: N818
    """Ends a stream that has no end."""


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in turn, as one session; those for Wan's weights are only compiled."""
    monkeypatch.chdir(tmp_path)
    shown: list[np.ndarray] = []

    def show(frames: np.ndarray) -> None:
        shown.append(frames)
        if len(shown) == 3:
            raise Enough

    session = {"show": show, "clicked": True}
    for kind, block in BLOCKS.findall((ROOT / page).read_text()):
        if kind != "python":
            continue
        code = compile(block, page, "exec")
        if "Wan-AI" in block:
            continue
        try:
            exec(code, session)
        except Enough:
            continue
    assert (tmp_path / "out.mp4").stat().st_size > 0
    assert [len(frames) for frames in shown] == [9, 12, 12]
