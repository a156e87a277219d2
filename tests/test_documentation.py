"""What README and docs/ say can be done: links lead somewhere, commands exist, the code runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pyrf.commands.app import app
from tests.test_layers import ORDER
from tests.test_public_api import file_of

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ROUGH = ("kernels.md", "live-video.md", "log.md", "serving.md", "study.md", "training.md")
PLAIN = [str(page.relative_to(ROOT)) for page in PAGES if page.name not in ROUGH]
"""Pages in plain English: short sentences, and tables of values. The others join as they are rewritten."""
MOST_WORDS, MOST_IN_A_CELL = 25, 60
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:pyrf|export|training|tests|benchmarks|csrc|docs|examples|integrations)/[\w./-]+)`")
SOURCES = (
    *("pyrf", "export", "training", "csrc", "benchmarks", "examples", "integrations"),
    *("tests/support", "tests/kernels"),
)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FILE = re.compile(r"\.(?:cuh?|gif|h|jsonl?|md|mp4|onnx|pn?g|pth?|py|safetensors|so|svg|toml|txt|yaml)$")
HISTORY = ("log.md", "CHANGELOG.md")
"""Pages that tell of names which are gone."""
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
    paths = sorted(set(PATH.findall(page.read_text())))
    assert not [path for path in paths if not (ROOT / path).exists()]


@cache
def code() -> str:
    """All that is written in the code, and in the files that it reads."""
    kinds = (".py", ".cu", ".cuh", ".cpp", ".h", ".yaml", ".js", ".json")
    files = [file for folder in SOURCES for file in (ROOT / folder).rglob("*") if file.suffix in kinds]
    return "\n".join(file.read_text() for file in [*files, ROOT / "pyproject.toml", ROOT / "CMakeLists.txt"])


@cache
def identifiers() -> set[str]:
    words = set(re.findall(r"[A-Za-z_]\w*", code()))
    return words | {f"{word}_total" for word in words}  # Prometheus adds it to the names of counters


@cache
def owners() -> set[str]:
    """What a dotted name may begin with: a module of the tree, or a class."""
    modules = {file.stem for folder in SOURCES for file in (ROOT / folder).rglob("*.py")}
    return modules | set(re.findall(r"^class (\w+)", code(), re.MULTILINE))


def is_in_the_code(name: str) -> bool:
    """Of `pyrf.a.b` the module must hold the name behind it; of other names each part must be a word."""
    first, *parts = name.split(".")
    is_label = f'"{name}"' in code() or f'stage("{name[5:]}")' in code()  # of a span or a range
    if first == "pyrf" and not is_label:
        depth = max(n for n in range(len(parts) + 1) if file_of(".".join(["pyrf", *parts[:n]])))
        home = file_of(".".join(["pyrf", *parts[:depth]])) or ROOT
        if parts[depth:] and parts[0] != "_native" and parts[depth] not in home.read_text():
            return False
    if parts and first != "pyrf" and first not in owners():
        return True  # another package's
    return identifiers().issuperset([first, *parts])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: page.name
)
def test_names_are_in_the_code(page: Path) -> None:
    """Names in backticks: dotted ones, classes, and words with an underscore."""
    named = re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`\n]*\))?`", prose(page))
    wanted = {name for name in named if re.search(r"\w\.\w|_|[a-z][A-Z]", name) and not FILE.search(name)}
    assert not [name for name in sorted(wanted) if not is_in_the_code(name)]


def sentences(page: Path) -> Iterator[str]:
    """The prose of a page without code, tables and headings; code in a line counts as one word."""
    kept = [line for line in prose(page).splitlines() if not line.startswith(("|", "#", "    "))]
    text = re.sub(r"`[^`]+`", "code", LINK.sub("]", "\n".join(kept)))
    for block in re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", text, flags=re.MULTILINE):
        yield from re.split(r"(?<=[.!?])[\])*\"]*\s+", " ".join(block.split()))


@pytest.mark.parametrize("page", PLAIN)
def test_sentences_are_short(page: str) -> None:
    long = [s for s in sentences(ROOT / page) if len(re.findall(r"\b[A-Za-z][\w'-]*", s)) > MOST_WORDS]
    assert not long, f"over {MOST_WORDS} words:\n" + "\n".join(long)


@pytest.mark.parametrize("page", PLAIN)
def test_cells_hold_values(page: str) -> None:
    """What needs more room than a cell stands under the table. Commands may be as long as they are."""
    rows = [line for line in prose(ROOT / page).splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)]
    shown = [re.sub(r"`[^`]+`", "code", LINK.sub("]", cell)) for cell in cells]
    assert not [cell for cell in shown if len(cell) > MOST_IN_A_CELL]


def test_the_design_lists_the_rooms_in_order() -> None:
    table = (ROOT / "docs/design.md").read_text().split("| room |")[1].split("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()[2:]]
    assert [tuple(row) for row in rows] == list(ORDER)


def test_the_changelog_leads_to_modules() -> None:
    moved = re.findall(
        r"^\| `pyrf[\w.]*` \| `(pyrf[\w.]*)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert moved
    assert not [module for module in moved if not file_of(module)]


def test_the_glossary_is_in_order() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*: .+[.]$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 50
    assert words == sorted(words, key=str.lower)


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


def test_prompts_over_time_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of docs/prompts.md as one session; the one that needs a server is only compiled."""
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {}
    for kind, block in BLOCKS.findall((ROOT / "docs/prompts.md").read_text()):
        if kind == "yaml":
            (tmp_path / "story.yaml").write_text(block)
            assert CliRunner().invoke(app, ["script", "check", "story.yaml"]).exit_code == 0
        elif kind == "python":
            code = compile(block, "prompts.md", "exec")
            if "Client(" not in block:
                exec(code, session)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["1 0.5625 3 2.0625", f"{1 / 3}"]
