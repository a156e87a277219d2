"""What proves that the checks of the kernels are worth their name, run in full.

    python -m tests.kernels.prove

tries every mutant, counts the lines that run, and runs the checks under the sanitizers. When all of it holds,
it writes `proven.json`: the numbers, and a hash of the sources that they hold for. While that hash is true,
the tests try one mutant per kernel and leave out the rest. Any change to those sources makes it false, and
then the tests run everything again.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.kernels import line_coverage, sanitizers
from tests.kernels.emulator import COMPILER, CSRC, KERNELS, ROOT
from tests.kernels.mutants import MUTANTS, try_mutant

FOLDER = Path(__file__).resolve().parent
FILE = FOLDER / "proven.json"


def _modules(path: Path, seen: set[Path]) -> Iterator[Path]:
    """A module of this folder, and those that it imports from it."""
    if path in seen:
        return
    seen.add(path)
    yield path
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
            names += [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
    for name in names:
        module = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if module.exists():
            yield from _modules(module, seen)


def sources() -> list[Path]:
    """All that a proof depends on: `csrc`, the checks, and what runs them."""
    kernels = [path for path in CSRC.rglob("*") if path.suffix in (".cpp", ".cu", ".cuh", ".h")]
    seen: set[Path] = set()
    python = [path for name in ("prove.py", "checks.py") for path in _modules(FOLDER / name, seen)]
    return sorted([*kernels, *python])


def fingerprint() -> str:
    """A hash of the names and contents of `sources`."""
    digest = hashlib.sha256()
    for path in sources():
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def proven() -> dict[str, Any]:
    """What was proven last; empty where nothing was."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def is_proven() -> bool:
    """Whether what was proven last was proven for the sources as they are."""
    return proven().get("sources") == fingerprint()


def _mutants() -> dict[str, int]:
    """The number flagged, by kernel.

    Raises:
        RuntimeError: when one was not.
    """
    flagged = dict.fromkeys(KERNELS, 0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, caught in zip(MUTANTS, pool.map(try_mutant, MUTANTS)):
            print(f"{mutant.kernel}: {mutant.what}: {caught.words}", flush=True)
            if not caught.flagged:
                raise RuntimeError(f"{mutant.kernel}: nothing noticed that {mutant.what!r}")
            flagged[mutant.kernel] += 1
    return flagged


def _sanitizers() -> list[str]:
    """Names of the sanitizers that found nothing.

    Raises:
        RuntimeError: when one found something, or could not run.
    """
    for name in sanitizers.SANITIZERS:
        if found := sanitizers.findings(name):
            raise RuntimeError(f"sanitizer {name}: {found}")
        print(f"sanitizer {name}: nothing", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if not sanitizers.sees_the_race(Path(folder)):
            raise RuntimeError(f"ThreadSanitizer did not notice that {sanitizers.RACE.what!r}")
    return list(sanitizers.SANITIZERS)


def main() -> None:
    before = fingerprint()
    result: dict[str, Any] = {"sources": before, "mutants_flagged": _mutants()}
    with tempfile.TemporaryDirectory() as folder:
        coverage = line_coverage.measure(Path(folder))
    print(f"{coverage.covered:.1%} of {coverage.lines} lines run", flush=True)
    if coverage.covered < line_coverage.LEAST:
        raise RuntimeError(f"lines that never run: {' '.join(coverage.missed)}")
    result |= {"lines": coverage.lines, "lines_missed": coverage.missed, "sanitizers": _sanitizers()}
    version = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True)
    result["compiler"] = version.stdout.splitlines()[0]
    if fingerprint() != before:
        raise RuntimeError("the sources changed meanwhile: nothing is proven")
    FILE.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"not proven, and nothing written: {error}")
