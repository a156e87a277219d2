"""The checks notice every deliberate fault, run every line, and pass under the sanitizers.

All of this runs where the sources differ from those of `proven.json`. Where they are the same, one mutant per
kernel does; see `prove.py`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.kernels import line_coverage, prove, sanitizers
from tests.kernels.emulator import KERNELS, ROOT, has_compiler
from tests.kernels.mutants import MUTANTS, try_mutant

PROVEN = prove.is_proven()
FIRST = {next(i for i, mutant in enumerate(MUTANTS) if mutant.kernel == kernel) for kernel in KERNELS}

pytestmark = pytest.mark.skipif(not has_compiler(), reason="the emulator needs a C++ compiler")
in_full = pytest.mark.skipif(
    PROVEN, reason="proven.json holds for these sources; python -m tests.kernels.prove runs it all the same"
)


def test_what_was_proven() -> None:
    """A file that holds for these sources is a whole proof; one that does not is named in the summary."""
    if not PROVEN:
        warnings.warn(
            "csrc or the kernels' checks changed since they were proven: mutants, coverage, sanitizers all "
            "run now, for minutes. `python -m tests.kernels.prove` writes a new tests/kernels/proven.json.",
            stacklevel=1,
        )
        return
    proven = prove.proven()
    counts = {kernel: sum(mutant.kernel == kernel for mutant in MUTANTS) for kernel in KERNELS}
    assert proven["mutants_flagged"] == counts
    assert len(proven["lines_missed"]) <= (1 - line_coverage.LEAST) * proven["lines"]
    assert proven["sanitizers"] == list(sanitizers.SANITIZERS)


def test_a_proof_depends_on_the_kernels_and_on_their_checks() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in prove.sources()}
    csrc = {f"csrc/{kernel}{suffix}" for kernel in KERNELS for suffix in (".cu", ".cuh")}
    tests = {f"tests/kernels/{name}.py" for name in ("checks", "emulator", "mutants", "prove", "sanitizers")}
    assert csrc | tests | {"csrc/emulator/warp.cpp", "csrc/check.cpp"} <= names


def test_the_table_covers_every_kernel() -> None:
    assert len(MUTANTS) >= 20
    assert {mutant.kernel for mutant in MUTANTS} == set(KERNELS)


@pytest.mark.parametrize(
    "number", [pytest.param(i, marks=[] if i in FIRST else [in_full]) for i in range(len(MUTANTS))]
)
def test_every_mutant_is_flagged(number: int) -> None:
    caught = try_mutant(MUTANTS[number])
    print(f"{MUTANTS[number].what}: {caught.words}")
    assert caught.flagged, f"{MUTANTS[number].kernel}: nothing noticed that {MUTANTS[number].what!r}"


@in_full
@pytest.mark.skipif(not line_coverage.has_gcov(), reason="needs gcov")
def test_line_coverage(tmp_path: Path) -> None:
    coverage = line_coverage.measure(tmp_path)
    missed = " ".join(coverage.missed) or "none"
    print(f"{coverage.covered:.1%} of {coverage.lines} lines run; missed: {missed}")
    assert coverage.covered >= line_coverage.LEAST, missed


@in_full
@pytest.mark.parametrize("name", sanitizers.SANITIZERS)
def test_sanitizers_find_nothing(name: str) -> None:
    try:
        found = sanitizers.findings(name)
    except sanitizers.CannotRunError as error:
        pytest.skip(str(error))
    assert found is None, found


@in_full
def test_a_race_that_no_schedule_shows(tmp_path: Path) -> None:
    try:
        assert sanitizers.sees_the_race(tmp_path)
    except sanitizers.CannotRunError as error:
        pytest.skip(str(error))
