"""The checks notice every deliberate fault."""

from __future__ import annotations

import pytest

from tests.kernels.emulator import KERNELS, has_compiler
from tests.kernels.mutants import MUTANTS, try_mutant

pytestmark = pytest.mark.skipif(not has_compiler(), reason="the emulator needs a C++ compiler")


@pytest.mark.parametrize("number", range(len(MUTANTS)))
def test_every_mutant_is_flagged(number: int) -> None:
    caught = try_mutant(MUTANTS[number])
    print(f"{MUTANTS[number].what}: {caught.words}")
    assert caught.flagged, f"{MUTANTS[number].kernel}: nothing noticed that {MUTANTS[number].what!r}"


def test_the_table_covers_every_kernel() -> None:
    assert len(MUTANTS) >= 20
    assert {mutant.kernel for mutant in MUTANTS} == set(KERNELS)
