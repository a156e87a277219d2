"""What the compiler says of the CUDA kernels: registers, memory, spills.

Needs nvcc and the sources of `csrc/`, so a checkout; no GPU.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pyrf.kernels.instances import KERNELS, Instance
from pyrf.kernels.nvcc import SOURCES, CompilerMissingError, compile_kernel

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Resources:
    """Registers, bytes of stack and of spills of a thread, and bytes of static shared memory of a block."""

    instance: Instance
    arch: str
    registers: int
    shared: int
    stack: int
    spills: int


def parse_report(text: str) -> list[Resources]:
    """The entries of a `ptxas -v` report, in its order."""
    entries = list(_ENTRY.finditer(text))
    found = []
    for entry, after in zip(entries, [*entries[1:], None]):
        part = text[entry.end() : after.start() if after else None]
        stack, used = _STACK.search(part), _USED.search(part)
        if not stack or not used:
            raise ValueError(f"ptxas reports no registers or no stack for {entry[1]}")
        shared = _SHARED.search(part)
        found.append(
            Resources(
                Instance.of(entry[1]),
                arch=entry[2],
                registers=int(used[1]),
                shared=int(shared[1]) if shared else 0,
                stack=int(stack[1]),
                spills=int(stack[2]) + int(stack[3]),
            )
        )
    return found


def resources(arch: str = "90a") -> dict[Instance, Resources]:
    """Compile all kernels for one architecture and read the report. Takes seconds.

    Raises:
        CompilerMissingError: without nvcc, or without the sources.
    """
    sources = [SOURCES / f"{kernel}.cu" for kernel in KERNELS]
    if not all(source.exists() for source in sources):
        raise CompilerMissingError(f"no sources: {SOURCES} does not hold the kernels; it needs a checkout")
    with tempfile.TemporaryDirectory() as folder:
        texts = [compile_kernel(source, Path(folder, source.stem), [arch]) for source in sources]
    return {found.instance: found for text in texts for found in parse_report(text)}
