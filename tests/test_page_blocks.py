"""Python on the pages: all can be compiled, and names what there is; every block is run, or named below.

Blocks that need a server are run by tests/test_pages_served.py.
"""

from __future__ import annotations

import ast
import importlib
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pyrf.pipeline import StreamingPipeline
from pyrf.video import Video
from pyrf.video.live import CAMERAS
from pyrf.video.writer import Frames
from tests.support import adapters
from tests.support.forked import fork_ranks
from tests.support.video_files import ramp
from tests.test_documentation import BLOCKS, PAGES, ROOT, Enough

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


HERE = (
    *("adapters", "generate", "live-video", "memory", "outputs", "precision", "several-gpus", "students"),
    "training",
)
SERVED = ("keys", "live-video", "serving")
ELSEWHERE = {
    "README.md": "tests/test_documentation.py",
    "docs/api.md": "tests/test_documentation.py",
    "docs/prompts.md": "tests/test_documentation.py",
    "docs/coming-from-diffusers.md": "tests/integrations/test_diffusers_blocks.py",
    "docs/osc.md": "tests/integrations/test_osc.py",
    "docs/tutorial/first-app.md": "tests/test_site.py",
    "docs/tutorial/first-server.md": "tests/test_site.py",
    "docs/tutorial/whole-way.md": "tests/test_whole_way.py",
}
"""Tests with subjects of their own, which run the blocks of a page."""
COMPILED = {"docs/students.md": 'student="self_forcing.pt"'}
"""Blocks that cannot run here, by something in them: this one wants weights of Wan2.1 and of Self Forcing."""
ABSENT = {"wan": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "bundle": "DIR", "device": "cuda"}
"""What blocks name and this machine lacks."""


def test_every_page_is_run_by_some_test() -> None:
    """A new page with Python on it must say which test runs it."""
    listed = {f"docs/{name}.md" for name in (*HERE, *SERVED)} | set(ELSEWHERE)
    assert {page for page, _ in PYTHON} == listed
    for page, test in ELSEWHERE.items():
        assert Path(page).name.removesuffix(".md") in (ROOT / test).read_text(), test


def test_what_is_only_compiled_is_there() -> None:
    for page, phrase in COMPILED.items():
        assert len([block for of, block in PYTHON if of == page and phrase in block]) == 1


def blocks(page: str, *, served: bool = False) -> list[str]:
    """The blocks of a page that can run here; `served`: those that ask a server, else the others."""
    found = [block for of, block in PYTHON if of == page and COMPILED.get(page, "\0") not in block]
    return [block for block in found if ("Client(" in block) == served]


def run(page: str, session: dict[str, Any] | None = None, **here: str) -> dict[str, Any]:
    """All blocks of a page that need no server, as one session.

    Args:
        session: what a reader has at hand already.
        here: what stands in the place of a model or device of `ABSENT`.
    """
    session = {} if session is None else session
    for block in blocks(page):
        for name, other in here.items():
            block = block.replace(ABSENT[name], other)
        with suppress(Enough):
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


def test_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_bundle: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("ink", "snow")):
        save_file(adapters.keys("comfy", adapters.factors(seed=seed)), f"{name}.safetensors")
    session = run("docs/adapters.md", wan=str(random_bundle))
    assert session["pipe"].adapters == {"ink": 0.3, "snow": 1.0}


def test_memory(random_bundle: Path) -> None:
    assert run("docs/memory.md", bundle=str(random_bundle), device="cpu")["pipe"].dtype == torch.bfloat16


def test_the_score_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    StreamingPipeline.from_pretrained("tiny")("a red circle moves right", num_frames=33).save("out.mp4")
    session = run("docs/training.md")
    scores = ast.literal_eval(capsys.readouterr().out)
    assert sorted(scores) == sorted(session["MotionScore"].names)
    assert abs(scores["motion"]) < 3  # in deviations from the mean of true clips


def test_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks are processes on the CPU."""
    fork_ranks(monkeypatch)
    pipe = run("docs/several-gpus.md")["pipe"]
    with pipe.stream("a red circle moves right") as stream:
        assert next(stream).frames.shape == (9, 64, 96, 3)


def test_live_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, which the page's stream outlives, and the first camera: a test picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(CAMERAS, sys.platform, ("lavfi", "testsrc=size=80x60:rate=30"))
    Video(ramp(), fps=16).save("clip.mp4")
    shown: list[Frames] = []

    def show(frames: Frames) -> None:
        shown.append(frames)
        if len(shown) == 3:
            raise Enough

    session = run("docs/live-video.md", {"show": show})
    assert [len(frames) for frames in shown] == [9, 12, 12]  # the clip has 20
    assert session["stream"].strength == 0.6
    assert session["camera"].live
