"""The checks notice every deliberate fault. Each third one is tried here, all of them with `-m slow`."""

from __future__ import annotations

import pytest
from emulator import KERNELS, has_compiler
from mutants import MUTANTS, try_mutant

pytestmark = pytest.mark.skipif(not has_compiler(), reason="the emulator needs a C++ compiler")

EVERY = 3


def flagged(number: int) -> None:
    caught = try_mutant(MUTANTS[number])
    print(f"{MUTANTS[number].what}: {caught.words}")
    assert caught.flagged, f"{MUTANTS[number].kernel}: nothing noticed that {MUTANTS[number].what!r}"


@pytest.mark.parametrize("number", range(0, len(MUTANTS), EVERY))
def test_a_third_of_the_mutants_is_flagged(number: int) -> None:
    flagged(number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [n for n in range(len(MUTANTS)) if n % EVERY])
def test_the_other_mutants_are_flagged(number: int) -> None:
    flagged(number)


def test_the_table_covers_every_kernel() -> None:
    assert len(MUTANTS) >= 20
    assert {mutant.kernel for mutant in MUTANTS} == set(KERNELS)
