"""The checks under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kernels.emulator import COMPILER, KERNELS, build, has_compiler
from tests.kernels.mutants import Mutant, build_mutant

pytestmark = pytest.mark.skipif(not has_compiler(), reason="the emulator needs a C++ compiler")


class Sanitizer(NamedTuple):
    """How the kernels, the emulator and the library are built, and what Python must load first."""

    flags: tuple[str, ...]
    runtime_flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    preload: tuple[str, ...]


ADDRESS = "-fsanitize=address,undefined"
SANITIZERS = {
    "address and undefined": Sanitizer(
        ("-O1", "-g1", ADDRESS, "-fno-sanitize-recover=all"),
        ("-O1", "-g1", ADDRESS, "-fno-sanitize-recover=all", "-DPYRF_ASAN"),
        (ADDRESS,),
        ("libasan.so", "libubsan.so"),
    ),
    "thread": Sanitizer(
        ("-O1", "-g1", "-fsanitize=thread"),
        ("-O2", "-DPYRF_TSAN"),  # the emulator's own memory is none of the kernels' business
        ("-fsanitize=thread",),
        ("libtsan.so",),
    ),
}


def run_checks(sanitizer: Sanitizer, library: Path, *kernels: str) -> subprocess.CompletedProcess[str]:
    """Run the checks in a Python that carries the sanitizer; skip where the sanitizer cannot run at all."""
    preload = []
    for name in sanitizer.preload:
        command = [COMPILER, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            pytest.skip(f"{COMPILER} comes without {name}")
        preload.append(path)
    options = {
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory to its end
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    command = [sys.executable, "-m", "tests.kernels.checks", str(library), *kernels]
    result = subprocess.run(command, env=os.environ | options, capture_output=True, text=True, check=False)
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("ThreadSanitizer cannot place its memory beside this kernel's random addresses")
    return result


@pytest.mark.parametrize("name", SANITIZERS)
def test_nothing_is_found(name: str) -> None:
    sanitizer = SANITIZERS[name]
    library = build(
        flags=sanitizer.flags, runtime_flags=sanitizer.runtime_flags, link_flags=sanitizer.link_flags
    )
    result = run_checks(sanitizer, library, *KERNELS)
    assert result.returncode == 0, result.stderr


RACE = Mutant(
    "ring_attention",
    "  ptx::sync_warp();\n  state.normalise(warp_rows);\n",
    "  state.normalise(warp_rows);\n",
    "a lane overwrites queries that others may not have read",
)


def test_a_race_that_no_schedule_shows(tmp_path: Path) -> None:
    """ThreadSanitizer knows that ldmatrix orders nothing, though the emulator's lanes meet there."""
    sanitizer = SANITIZERS["thread"]
    library = build_mutant(
        RACE,
        tmp_path,
        flags=sanitizer.flags,
        runtime_flags=sanitizer.runtime_flags,
        link_flags=sanitizer.link_flags,
    )
    result = run_checks(sanitizer, library, RACE.kernel)
    assert result.returncode != 0
    assert "data race" in result.stderr
