"""The build: a native module that says how it was made, linked packages, and readable failures."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_native_module_tells_how_it_was_built() -> None:
    from pyrf._native import build_info

    info = build_info()
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


def build(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the native build into `tmp_path`."""
    command = [sys.executable, "setup.py", "build_ext"]
    command += ["--build-temp", str(tmp_path / "temp"), "--build-lib", str(tmp_path / "lib")]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_a_machine_without_cmake_is_told_so(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    result = build(tmp_path, PATH=str(tmp_path))
    assert result.returncode != 0
    assert "needs CMake 3.22 or newer, and no `cmake` is on PATH" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_failing_cmake_is_named(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    fake = tmp_path / "cmake"
    fake.write_text("#!/bin/sh\necho 'CMake Error: no compiler' >&2\nexit 3\n")
    fake.chmod(0o755)
    result = build(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert result.returncode != 0
    assert "CMake Error: no compiler" in result.stderr
    assert "failed with exit status 3" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_cuda_option_is_named(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    result = build(tmp_path, PYRF_CUDA="perhaps")
    assert result.returncode != 0
    assert "PYRF_CUDA must be auto, on or off, got 'perhaps'" in result.stderr
    assert "PYRF_CUDA=off builds without CUDA" in result.stderr


@pytest.mark.slow
def test_a_broken_nvcc_leaves_a_build_without_cuda(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    fake = tmp_path / "nvcc"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    result = build(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}", PYRF_CUDA="auto")
    assert result.returncode == 0, result.stderr
    assert f"{fake} does not work here: pyrf is built without CUDA" in " ".join(result.stderr.split())
