"""The build: a native module that says how it was made, linked packages, and readable failures."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import pyrf
from pyrf.extras import DISTRIBUTION

ROOT = Path(__file__).parents[1]


def test_the_native_module_tells_how_it_was_built() -> None:
    info = pytest.importorskip("pyrf._native").build_info()
    assert info["build_type"] == "Release"
    assert info["cxx_standard"] >= 201703
    assert info["compiler"].split()[0] in ("GNU", "Clang", "AppleClang", "MSVC")
    if info["cuda"]:
        assert info["cuda_archs"].startswith("80-real 90a-real ")
        assert info["cuda_version"].split(".")[0].isdecimal()


@pytest.mark.parametrize("name", ["pyrf.export", "pyrf.training", "pyrf.worlds.shapes.scenes"])
def test_linked_packages_are_importable(name: str) -> None:
    assert importlib.import_module(name)


def test_package_data_reaches_the_wheel() -> None:
    """Every asset and recipe in the tree matches a pattern of package-data."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package, folder, parts in (
        ("pyrf", ROOT / "pyrf", ("py.typed", "assets")),
        ("pyrf.training", ROOT / "training", ("recipes",)),
    ):
        packed = {path for pattern in patterns[package] for path in folder.glob(pattern) if path.is_file()}
        for part in parts:
            start = folder / part
            files = {start} if start.is_file() else {path for path in start.rglob("*") if path.is_file()}
            assert files <= packed, f"not packed: {sorted(files - packed)}"


def test_the_distribution_has_a_name_of_its_own_and_the_version_of_the_package() -> None:
    assert version(DISTRIBUTION) == pyrf.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION
    asked = [line for lines in project["optional-dependencies"].values() for line in lines]
    assert any(line.startswith(f"{DISTRIBUTION}[") for line in asked)
    assert not any(re.match(r"pyrf\b(?!-)", line) for line in asked)


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_run_what_is_here(name: str) -> None:
    """Scripts that a workflow names can be run, and what publishes waits for all that it publishes."""
    jobs = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    scripts = {script for step in steps for script in re.findall(r"(?<!\S)\.ci/\w+", step.get("run", ""))}
    assert scripts
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)
    assert all(set(job.get("needs", ())) <= set(jobs) for job in jobs.values())
    if name == "release":
        assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
        assert jobs["publish"]["if"] == "startsWith(github.ref, 'refs/tags/v')"


def build(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the native build into `tmp_path`."""
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "build_ext"]
    command += ["--build-temp", str(tmp_path / "temp"), "--build-lib", str(tmp_path / "lib")]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def only(tmp_path: Path, *programs: str) -> str:
    """A PATH that has these programs and no others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in programs:
        found = shutil.which(program)
        assert found is not None
        (folder / program).symlink_to(found)
    return str(folder)


def fake(tmp_path: Path, name: str, script: str) -> str:
    """A PATH that begins with a program of this name."""
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


BROKEN = "echo 'CMake Error: no compiler' >&2; exit 3"


def test_without_cmake_pyrf_is_built_without_its_native_module(tmp_path: Path) -> None:
    result = build(tmp_path, PATH=only(tmp_path))
    assert result.returncode == 0, result.stderr
    assert (
        "installed without its native module: it needs CMake 3.22 or newer, and no `cmake`" in result.stderr
    )
    assert not list((tmp_path / "lib").rglob("_native*"))


def test_a_failing_cmake_is_named(tmp_path: Path) -> None:
    path = fake(tmp_path, "cmake", BROKEN)
    result = build(tmp_path, PATH=path)
    assert result.returncode == 0, result.stderr
    assert "CMake Error: no compiler" in result.stderr
    assert "failed with exit status 3" in result.stderr


@pytest.mark.parametrize("insists", ["PYRF_NATIVE", "PYRF_CUDA"])
def test_who_insists_gets_the_module_or_an_error(tmp_path: Path, insists: str) -> None:
    result = build(tmp_path, PATH=fake(tmp_path, "cmake", BROKEN), **{insists: "on"})
    assert result.returncode != 0
    assert "the native module cannot be built" in result.stderr
    assert "failed with exit status 3" in result.stderr
    assert "Traceback" not in result.stderr


def test_off_builds_none_and_removes_an_earlier_one(tmp_path: Path) -> None:
    stale = tmp_path / "lib/pyrf" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    stale.parent.mkdir(parents=True)
    stale.touch()
    result = build(tmp_path, PATH=fake(tmp_path, "cmake", BROKEN), PYRF_NATIVE="off")
    assert result.returncode == 0, result.stderr
    assert "CMake Error" not in result.stderr
    assert not stale.exists()


@pytest.mark.parametrize("name", ["PYRF_CUDA", "PYRF_NATIVE"])
def test_a_wrong_option_is_named(tmp_path: Path, name: str) -> None:
    result = build(tmp_path, **{name: "perhaps"})
    assert result.returncode != 0
    assert f"{name} must be auto, on or off, got 'perhaps'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("cmake", "compiler", "native", "wanted"),
    [
        ("echo cmake version 3.28.1", True, "auto", []),
        ("echo cmake version 3.10.2", True, "auto", ["cmake>=3.22"]),
        ("echo cmake version 4.0.0", True, "on", []),
        ("echo pyenv: cmake: command not found >&2; exit 127", True, "auto", ["cmake>=3.22"]),
        (None, True, "auto", ["cmake>=3.22"]),
        (None, True, "off", []),
        (None, False, "auto", []),
        (None, False, "on", ["cmake>=3.22"]),
    ],
)
def test_cmake_is_asked_for_where_there_is_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cmake: str | None,
    compiler: bool,
    native: str,
    wanted: list[str],
) -> None:
    folder = only(tmp_path, "sh")
    if cmake is not None:
        fake(Path(folder), "cmake", cmake)
    if compiler:
        fake(Path(folder), "g++", "exit 0")
    monkeypatch.setenv("PATH", folder)
    monkeypatch.setenv("PYRF_NATIVE", native)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.syspath_prepend(ROOT)
    assert importlib.import_module("build_backend").native_requirements() == wanted


@pytest.mark.slow
def test_a_broken_nvcc_leaves_a_build_without_cuda(tmp_path: Path) -> None:
    result = build(tmp_path, PATH=fake(tmp_path, "nvcc", "exit 1"), PYRF_CUDA="auto")
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path}/nvcc does not work here: pyrf is built without CUDA" in " ".join(
        result.stderr.split()
    )
