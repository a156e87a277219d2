"""The emulator, built once a session from what has changed."""

from __future__ import annotations

import pytest

from tests.kernels.emulator import COMPILER, Emulator, build, has_compiler


@pytest.fixture(scope="session")
def built() -> Emulator:
    """The kernels on the emulator; one library serves all tests."""
    if not has_compiler():
        pytest.skip(f"the emulator needs a C++ compiler, and there is no {COMPILER}")
    return Emulator(build())


@pytest.fixture
def emulated(built: Emulator) -> Emulator:
    """The emulator with its regular schedule and its counters at zero."""
    built.configure(0, 0)
    built.counters()
    return built
