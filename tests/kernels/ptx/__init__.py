"""Runs the PTX that nvcc emits, inline asm included, in numpy: what a kernel computes, without a GPU.

    kernels = parse(text)                   # entry name -> Kernel
    memory = GlobalMemory()
    x = memory.place(array)                 # an address; the array is copied in
    launch(kernels[name], grid, block, struct.pack("<Qi", x, n), memory, dynamic_shared=0)
    memory.fetch(x)                         # what the kernel left there

Every thread of a batch of blocks is one lane of numpy vectors. Lanes at the lowest instruction run
first, so diverged threads meet again where their paths do. Arithmetic is IEEE (`.ftz` and `.approx` are
taken as exact), `mma` sums exactly and rounds once, and an asynchronous copy lands at the latest moment
that is allowed: when it is waited for. Registers and shared memory start as NaN. Tiny shapes only, and
no race is found: warps run in lockstep.
"""

from tests.kernels.ptx.machine import launch
from tests.kernels.ptx.memory import GlobalMemory
from tests.kernels.ptx.syntax import Kernel, PtxError, parse

__all__ = ["GlobalMemory", "Kernel", "PtxError", "launch", "parse"]
