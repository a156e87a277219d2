"""What is said when a package of an extra is missing, and that it names a clone of pyrf."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pyrf.extras import MissingExtraError, install_hint, needs, require

ROOT = Path(__file__).parents[1]


def test_all_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiortc", None)
    with pytest.raises(MissingExtraError) as raised:
        require("serve", "serving", "json", "aiortc", "no_such_package.part", "no_such_module")
    assert str(raised.value) == (
        "serving needs aiortc, no_such_package.part, no_such_module; "
        "run pip install '.[serve]' in a clone of pyrf"
    )
    require("serve", "serving", "json", "os.path")


def test_an_import_that_fails_names_its_package() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"^the judge needs no_such_module; run"),
        needs("x", "the judge"),
    ):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401


def test_a_library_that_does_not_load_says_why() -> None:
    why = "libnvinfer.so.10: cannot open shared object file"
    with pytest.raises(MissingExtraError, match=why), needs("tensorrt", "the tensorrt backend"):
        raise ImportError(why)


def test_a_fault_of_pyrf_is_no_missing_package() -> None:
    with pytest.raises(ImportError, match=r"pyrf\.nowhere"), needs("x", "the judge"):
        import pyrf.nowhere  # type: ignore[import-not-found]  # noqa: F401


def test_hints_name_extras_that_exist_and_never_the_index() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [path for folder in ("pyrf", "training", "export") for path in (ROOT / folder).rglob("*.py")]
    for path in [*sources, ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text()
        assert "pip install 'pyrf" not in text, path
        if "from pyrf.extras import" not in text:
            continue
        for extra in re.findall(r"""\b(?:require|needs)\(\s*"(\w+)",""", text):
            assert extra in extras, path


def test_no_text_installs_by_name() -> None:
    """The package index has another project of this name, so everything is installed from a clone."""
    folders = ("pyrf", "training", "export", "examples", "benchmarks", "docs", "tests", ".ci", ".github")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".html", ".js", ".json", ".txt", ""}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    seen = 0
    for path in [*files, *(path for path in ROOT.iterdir() if path.suffix in kinds)]:
        if not path.is_file() or path == Path(__file__):
            continue
        for command in re.findall(
            r"(?:pip3?|uv add|pipx) install([^\n`#]*)", path.read_text(errors="ignore")
        ):
            words = re.split(r" in (?:a|the) clone|[;&|]", command)[0]
            named = re.findall(r"(?<![\w./-])pyrf(?![\w/-])", words)
            assert not named, f"{path}: pip install{command}"
            seen += 1
    assert seen > 10


def test_the_hint_is_for_a_clone() -> None:
    assert install_hint("train") == "pip install '.[train]' in a clone of pyrf"


def test_the_oldest_packages_are_those_that_are_admitted() -> None:
    """What `.ci/lowest` installs; torch is not in its list."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = (project["optional-dependencies"][name] for name in ("client", "train", "onnx", "serve", "otel"))
    for wanted in map(Requirement, [*project["dependencies"], *(one for extra in extras for one in extra)]):
        if wanted.name not in ("torch", "pyrf-stream"):
            assert oldest[wanted.name] in wanted.specifier, wanted
