"""Python on the pages: all of it can be compiled, and names what there is; what needs nothing else is run.

Other tests run the blocks of the lessons, of README, api, prompts, osc and coming-from-diffusers.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

from pyrf.pipeline import StreamingPipeline
from tests.test_documentation import BLOCKS, PAGES, ROOT

PYTHON = [
    (page.relative_to(ROOT).as_posix(), block)
    for page in PAGES
    for kind, block in BLOCKS.findall(page.read_text())
    if kind == "python"
]


def test_blocks_are_found() -> None:
    assert len(PYTHON) > 20


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=lambda value: value[:40].split("\n")[0])
def test_blocks_compile_and_import_what_there_is(page: str, block: str) -> None:
    tree = compile(block, page, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pyrf"):
            module = importlib.import_module(str(node.module))
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def run(page: str) -> dict[str, Any]:
    """All blocks of a page as one session."""
    session: dict[str, Any] = {}
    for of, block in PYTHON:
        if of == page:
            exec(compile(block, page, "exec"), session)
    return session


def test_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("docs/outputs.md")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.mp4", "out.webm"]


def test_precision() -> None:
    session = run("docs/precision.md")
    assert session["pipe"].precision == "fp8-attention"
    assert session["video"].frames.shape == (9, 64, 96, 3)


def test_what_a_file_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_bundle: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    video = StreamingPipeline.from_pretrained(str(random_bundle))("a red circle", num_frames=9, seed=3)
    for name in ("out.mp4", "sheet.png", "out.gif"):
        video.save(name)
    assert run("docs/generate.md")["made"]["seed"] == 3
