"""The documentation site: every page is in its navigation, it builds without a warning, its lessons run."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from pyrf.commands.app import app
from tests.test_documentation import BLOCKS, commands
from tests.test_examples import ENVIRONMENT, EXAMPLES, serving
from tests.test_public_api import PUBLIC, public_names

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LESSONS = DOCS / "tutorial"


class Loader(yaml.SafeLoader):
    """Reads `mkdocs.yml`, whose tags name functions of Python; they are passed over."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def in_navigation(entries: list[object]) -> Iterator[str]:
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(value, list):
                yield from in_navigation(value)
            else:
                yield str(value)


def test_every_page_is_in_the_navigation_once() -> None:
    pages = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    listed = list(in_navigation(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]))
    assert sorted(listed) == pages, "the `nav` of mkdocs.yml must list every page of docs/, once"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "Documentation built" in built.stderr, "a quiet build lets warnings pass"
    return folder


def test_the_reference_holds_what_users_build_on(site: Path) -> None:
    api = (site / "reference/api.html").read_text()
    names = [f"{module}.{name}" for module in PUBLIC for name in public_names(module) if name[0] != "_"]
    wanted = [*names, "pyrf.StreamingPipeline.__call__", "pyrf.Stream.set_prompt"]
    assert not [name for name in wanted if f'id="{name}"' not in api]

    cli = (site / "reference/cli.html").read_text()
    assert not [name for name in ("generate", "serve", "eval world") if f"pyrf {name}" not in cli]

    paths = json.loads((DOCS / "openapi.json").read_text())["paths"]
    protocol = (site / "reference/protocol.html").read_text()
    assert not [path for path in [*paths, "HelloMessage", "FrameHeader", ">recache<"] if path not in protocol]

    settings = (site / "reference/settings.html").read_text()
    for name in ("max_sessions", "--max-sessions", "creates_per_minute", "--ice-server"):
        assert f"<code>{name}</code>" in settings


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]+src="https?://|<link[^>]+rel="stylesheet"[^>]+href="https?://'
    )
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    assert not [page.name for page in pages if loaded.search(page.read_text())]


def test_what_lies_outside_of_docs_comes_along(site: Path) -> None:
    assert (site / "source/CONTRIBUTING.html").exists()
    assert (site / "source/examples/file_writer.py").read_text() == (EXAMPLES / "file_writer.py").read_text()


def test_lists_are_those_that_github_shows() -> None:
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("mkdocs")
    hooks = runpy.run_path(str(DOCS / "hooks.py"))
    text = "1. First:\n\n       pyrf words\n\n   More of it.\n2. Second.\n\nNo list.\n\n    code\n"
    shown = markdown.markdown(hooks["with_wide_lists"](text))
    assert re.findall(r"<(/?(?:li|pre|ol))>", shown) == [
        *("ol", "li", "pre", "/pre", "/li", "li", "/li", "/ol", "pre", "/pre")
    ]
    assert "<code>code\n</code>" in shown


def same_picture(made: Path, shown: str) -> None:
    """The picture of a lesson is what its command makes; machines differ in the last bits only."""
    with Image.open(made) as a, Image.open(DOCS / "img" / shown) as b:
        assert a.size == b.size
        difference = np.abs(np.asarray(a.convert("RGB"), float) - np.asarray(b.convert("RGB"), float))
    assert difference.mean() < 4


def test_the_first_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = [words for words in commands(LESSONS / "first-stream.md") if words[:2] != ["pyrf", "doctor"]]
    said = [CliRunner().invoke(app, arguments) for _, *arguments in shown]
    assert [result.exit_code for result in said] == [0] * len(said), [result.output for result in said]
    assert (
        "'gray' (near: 'grey')"
        in said[shown.index(shlex.split('pyrf words "a gray circle" --model tiny'))].output
    )
    assert (tmp_path / "first.mp4").stat().st_size > 0
    same_picture(tmp_path / "first.png", "first-stream.png")


def test_the_first_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCKS.findall((LESSONS / "first-app.md").read_text())
    (tmp_path / "app.py").write_text("\n".join(block for kind, block in blocks if kind == "python"))
    assert [block for kind, block in blocks if kind == "sh"] == ["python app.py\n"]
    monkeypatch.chdir(tmp_path)
    runpy.run_path("app.py", run_name="__main__")
    size, *chunks, frames = capsys.readouterr().out.splitlines()
    assert size == "96 64 16.0"
    assert [re.sub(r" \d+\.\d+ s$", "", line) for line in chunks] == [
        *("0 (9, 64, 96, 3)", "1 (12, 64, 96, 3)", "2 (12, 64, 96, 3)")
    ]
    assert frames == "21"
    same_picture(tmp_path / "app.png", "first-app.png")


def test_the_first_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = LESSONS / "first-server.md"
    (example,) = [words[1:] for words in commands(page) if words[0] == "python"]
    monkeypatch.chdir(tmp_path)
    with serving() as url:
        monkeypatch.setattr(sys, "argv", [*example, "--url", url])
        runpy.run_path(str(ROOT / example[0]), run_name="__main__")
        for kind, block in BLOCKS.findall(page.read_text()):
            if kind == "python":
                assert "http://127.0.0.1:8000" in block
                exec(compile(block.replace("http://127.0.0.1:8000", url), page.name, "exec"), {})
    assert capsys.readouterr().out == "server.png: 80 frames\n(64, 96, 3)\n"
    same_picture(tmp_path / "server.png", "first-server.png")


def said_by_the_code() -> set[str]:
    """The constant parts of all texts in pyrf, neighbours joined as Python joins them."""
    nodes = (node for file in (ROOT / "pyrf").rglob("*.py") for node in ast.walk(ast.parse(file.read_text())))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def is_said(words: list[str], texts: str) -> bool:
    """Whether a message is made of texts of the code, each of two words at least."""
    return not words or any(
        " ".join(words[:n]) in texts and is_said(words[n:], texts) for n in range(len(words), 1, -1)
    )


def test_messages_of_the_troubleshooting_are_in_the_code() -> None:
    texts = "\n".join(said_by_the_code())
    blocks = BLOCKS.findall((DOCS / "troubleshooting.md").read_text())
    lines = [line for kind, block in blocks if kind == "text" for line in block.splitlines()]
    parts = [
        part.strip(" '()[],:;.").replace(". ", " ").split() for line in lines for part in line.split("...")
    ]
    wanted = [part for part in parts if len(part) > 3]
    assert len(wanted) > 25
    assert not [" ".join(part) for part in wanted if not is_said(part, texts)]
    assert not is_said(["the", "model", "does", "not", "mind"], texts)


def test_the_model_zoo_has_every_model() -> None:
    page = (DOCS / "models.md").read_text()
    presets = yaml.safe_load((ROOT / "pyrf/bundle/presets.yaml").read_text())
    bundled = [folder.name for folder in (ROOT / "pyrf/assets").iterdir() if folder.is_dir()]
    assert not [name for name in [*presets, *bundled] if f"\n| `{name}` |" not in page]
    for name, settings in presets.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert settings["models"] == [row.split("|")[2].strip()]
