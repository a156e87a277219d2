"""The emulator names the faults it is there to find, in every schedule that can meet them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.checks import check_kernel
from tests.kernels.emulator import EVERY_SCHEDULE, Emulator, FailedError, build, has_compiler
from tests.kernels.numbers import aligned

FAULTS = {
    1: "divergent barriers: line",
    2: "the thread ends while|barrier of line .* after",
    3: "barrier of line .* after|the thread ends while",
    4: "divergent warp instructions: ",
    5: "divergent warp instructions: shfl of line",
    6: r"deadlock: of 64 threads 2 are done.*in syncwarp, line \d+, lanes ffffff7f",
    7: "shared memory: 4 bytes at 25[6-9]|shared memory: 4 bytes at [345]..",
    8: "shared memory: 16 bytes at 8 are misaligned",
    9: r"store out of bounds: byte \d+ of buffer, which has 256, line",
    10: "load out of bounds of all 1 buffers",
    11: "load of 16 bytes is misaligned",
    12: "cp.async copies it never waited for",
    13: "race: line .* writes byte 0 of buffer, which another block touches",
    14: "race: line .* which another block",
}


@pytest.fixture(scope="module")
def faults() -> Emulator:
    """The emulator with the kernels of faults.cu."""
    if not has_compiler():
        pytest.skip("the emulator needs a C++ compiler")
    return Emulator(build(kernels=(), extra=(Path(__file__).with_name("faults.cu"),)))


def run_fault(
    emulator: Emulator, which: int, *, blocks: int = 2, threads: int = 64, shared: int = 256
) -> None:
    buffer = aligned((64,), np.float32)
    pointer = ctypes.c_void_p(buffer.ctypes.data)
    emulator.call("fault", {"buffer": buffer}, which, pointer, blocks, threads, shared)


@pytest.mark.parametrize("which", FAULTS)
def test_faults_are_named(faults: Emulator, which: int) -> None:
    for schedule, _ in EVERY_SCHEDULE[::3]:
        faults.configure(schedule, copy_mode=1)
        with pytest.raises(
            FailedError, match=rf"^fault: emulator: block \(\d+, 0, 0\) thread \d+: .*({FAULTS[which]})"
        ):
            run_fault(faults, which)
    run_fault(faults, 0)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"blocks": 0}, "a grid that no device launches"),
        ({"threads": 1025}, "blocks have 1 to 1024 threads"),
        ({"shared": 164 * 1024}, "more shared memory than sm_80 has"),
    ],
)
def test_launch_limits(faults: Emulator, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(FailedError, match=message):
        run_fault(faults, 0, **sizes)


def test_the_portable_context_switch() -> None:
    """Where there is no assembly for the processor, ucontext does the same, slower."""
    if not has_compiler():
        pytest.skip("the emulator needs a C++ compiler")
    library = build(runtime_flags=("-O2", "-DPYRF_EMULATOR_UCONTEXT"))
    check_kernel(Emulator(library), "norm_rope_append")
