"""The CPU's attention compiled for the processor at hand, for tests where that has no AVX-512.

Its source is plain vector code, of which a compiler makes the instructions that there are: slower ones, of
the same arithmetic. So the tests of attention run on every x86 machine.
"""

import platform

from tests.kernels.emulator import CSRC, View, build, has_compiler, load

SOURCES = tuple(CSRC / "cpu" / name for name in ("ring_attention.cpp", "attention_rows.cpp"))
FLAGS = ("-O2", "-DPYRF_AVX512", "-ffp-contract=fast", "-Wno-psabi")


def can_be_built():
    """Whether there is a compiler for them, and a processor that it knows to ask for AVX-512."""
    return has_compiler() and platform.machine() in ("x86_64", "AMD64")


class PortableLoops:
    """The native module's loops, and attention for every processor."""

    def __init__(self, loops):
        self._loops = loops
        self._library = load(build(kernels=(), extra=SOURCES, flags=FLAGS), CSRC / "cpu" / "ops.h")

    def __getattr__(self, name):
        return getattr(self._loops, name)

    def serves_ring_attention(self, head_dim):
        return head_dim % 32 == 0

    def ring_attention(self, q, keys, values, length, out, threads):
        views = [View.of(*x) for x in (q, keys, values)]
        self._library.pyrf_cpu_ring_attention(*views, length, View.of(*out), threads)
