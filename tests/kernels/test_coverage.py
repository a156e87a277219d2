"""Every line of the kernels and their launchers runs in the checks (gcov)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.emulator import COMPILER, CSRC, FLAGS, KERNELS, build, has_compiler

pytestmark = pytest.mark.skipif(
    not has_compiler() or shutil.which("gcov") is None, reason="needs a C++ compiler and gcov"
)

FILES = ("elements.cuh", *(kernel + suffix for kernel in KERNELS for suffix in (".cuh", ".cu")))
LEAST = 0.97


def count_lines(folder: Path) -> dict[str, dict[int, int]]:
    """How often each line ran, by file; the instances of a template are added up."""
    counts: dict[str, dict[int, int]] = {name: {} for name in FILES}
    notes = [str(path) for path in folder.glob("*.gcda")]
    command = ["gcov", "--json-format", "--stdout", *notes]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    for report in result.stdout.splitlines():
        for file in json.loads(report)["files"]:
            lines = counts.get(Path(file["file"]).name)
            if lines is not None:
                for line in file["lines"]:
                    number = line["line_number"]
                    lines[number] = lines.get(number, 0) + line["count"]
    return counts


def test_line_coverage(tmp_path: Path) -> None:
    for kernel in KERNELS:
        command = [COMPILER, *FLAGS, "-O0", "--coverage", "-x", "c++", "-c", str(CSRC / f"{kernel}.cu")]
        subprocess.run([*command, "-o", str(tmp_path / f"{kernel}.o")], check=True)
    objects = [tmp_path / f"{kernel}.o" for kernel in KERNELS]
    library = build(kernels=(), objects=objects, link_flags=("--coverage",), cache=tmp_path)
    subprocess.run([sys.executable, "-m", "tests.kernels.checks", library], check=True)

    counts = count_lines(tmp_path)
    missed = [f"{name}:{number}" for name in FILES for number, count in counts[name].items() if not count]
    lines = sum(len(counts[name]) for name in FILES)
    assert all(counts.values()), "a file has no lines"
    covered = 1 - len(missed) / lines
    print(f"{covered:.1%} of {lines} lines run; missed: {' '.join(missed) or 'none'}")
    assert covered >= LEAST, missed
