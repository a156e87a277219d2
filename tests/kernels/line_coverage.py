"""Which lines of the kernels and their launchers the checks run (gcov)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.kernels.emulator import COMPILER, CSRC, FLAGS, KERNELS, build
from tests.kernels.mutants import SHARED

FILES = (*SHARED, "ring_launch.h", *(kernel + suffix for kernel in KERNELS for suffix in (".cuh", ".cu")))
LEAST = 0.97


class Coverage(NamedTuple):
    """Lines of code in `FILES`, and those that never ran, as file:line."""

    lines: int
    missed: tuple[str, ...]

    @property
    def covered(self) -> float:
        return 1 - len(self.missed) / self.lines


def has_gcov() -> bool:
    return shutil.which("gcov") is not None


def _count_lines(folder: Path) -> dict[str, dict[int, int]]:
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


def measure(folder: Path) -> Coverage:
    """Build the kernels in an empty folder, run their checks and count."""
    for kernel in KERNELS:
        command = [COMPILER, *FLAGS, "-O0", "--coverage", "-x", "c++", "-c", str(CSRC / f"{kernel}.cu")]
        subprocess.run([*command, "-o", str(folder / f"{kernel}.o")], check=True)
    objects = [folder / f"{kernel}.o" for kernel in KERNELS]
    library = build(kernels=(), objects=objects, link_flags=("--coverage",), cache=folder)
    subprocess.run([sys.executable, "-m", "tests.kernels.checks", library], check=True)
    counts = _count_lines(folder)
    assert all(counts.values()), "a file has no lines"
    missed = [f"{name}:{number}" for name in FILES for number, count in counts[name].items() if not count]
    return Coverage(sum(map(len, counts.values())), tuple(missed))
