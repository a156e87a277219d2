"""The checks under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.kernels.emulator import COMPILER, KERNELS, build
from tests.kernels.mutants import Mutant, build_mutant


class CannotRunError(RuntimeError):
    """A sanitizer is not here, or does not run on this machine."""


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
RACE = Mutant(
    "ring_attention",
    "    ptx::sync_warp();\n    normalise(rows);\n",
    "    normalise(rows);\n",
    "a lane overwrites queries that others may not have read",
)
"""A race that no schedule shows: ldmatrix orders nothing, though the emulator's lanes meet there."""


def _run_checks(sanitizer: Sanitizer, library: Path, *kernels: str) -> subprocess.CompletedProcess[str]:
    preload = []
    for name in sanitizer.preload:
        command = [COMPILER, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).is_absolute():
            raise CannotRunError(f"{COMPILER} comes without {name}")
        preload.append(path)
    options = {
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory to its end
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    command = [sys.executable, "-m", "tests.kernels.checks", str(library), *kernels]
    result = subprocess.run(command, env=os.environ | options, capture_output=True, text=True, check=False)
    if "unexpected memory mapping" in result.stderr:
        raise CannotRunError("ThreadSanitizer cannot place its memory beside this kernel's random addresses")
    return result


def findings(name: str) -> str | None:
    """What a sanitizer finds in the kernels; None when all checks pass.

    Raises:
        CannotRunError: when it does not run here.
    """
    sanitizer = SANITIZERS[name]
    library = build(
        flags=sanitizer.flags, runtime_flags=sanitizer.runtime_flags, link_flags=sanitizer.link_flags
    )
    result = _run_checks(sanitizer, library, *KERNELS)
    return result.stderr or f"exit status {result.returncode}" if result.returncode else None


def sees_the_race(folder: Path) -> bool:
    """Whether ThreadSanitizer finds `RACE`, built in an empty folder.

    Raises:
        CannotRunError: when it does not run here.
    """
    sanitizer = SANITIZERS["thread"]
    library = build_mutant(
        RACE,
        folder,
        flags=sanitizer.flags,
        runtime_flags=sanitizer.runtime_flags,
        link_flags=sanitizer.link_flags,
    )
    result = _run_checks(sanitizer, library, RACE.kernel)
    return result.returncode != 0 and "data race" in result.stderr
