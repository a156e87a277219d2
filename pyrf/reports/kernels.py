"""What the compiler says of the CUDA kernels: registers, memory, and how many blocks an SM holds.

Needs nvcc and the sources of `csrc/`, so a checkout; no GPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "csrc"
SIZES = {
    "add_norm": (128, 256, 512, 1536, 5120),
    "ema_sink_update": (64, 128),
    "norm_rope_append": (64, 128),
    "ring_attention": (64, 128),
}
"""What each kernel is compiled for: a head_dim, or of `add_norm` the widest row."""
KERNELS = tuple(SIZES)
ELEMENTS = {"Bf16": "bfloat16", "Fp16": "float16"}
FLAGS = ("-std=c++17", "-O3", "-fmad=false")
STRICT = ("--warn-on-spills", "--warn-on-local-memory-usage", "-Werror")
"""Options of ptxas under which a kernel whose registers do not fit is refused."""

_NAME = re.compile(r"_ZN4pyrf\d+([a-z_]+)_kernelINS_4(\w+?)ELi(\d+)E")
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


class CompilerMissingError(RuntimeError):
    """There is no nvcc here, or nothing to compile."""


@dataclass(frozen=True)
class Instance:
    """A kernel as compiled for one element type and one of its `SIZES`."""

    kernel: str
    dtype: str
    size: int

    @classmethod
    def of(cls, entry: str) -> Instance:
        """From the mangled name of an entry.

        Raises:
            ValueError: when it is no kernel of ours.
        """
        match = _NAME.search(entry)
        if not match or match[2] not in ELEMENTS:
            raise ValueError(f"{entry} is not the name of a kernel<element, size>")
        return cls(match[1], ELEMENTS[match[2]], int(match[3]))

    @classmethod
    def serving(cls, kernel: str, dtype: str, heads: int, head_dim: int) -> Instance | None:
        """The one that the launcher chooses for a model; None where there is none."""
        if kernel == "add_norm":
            size = min((width for width in SIZES[kernel] if width >= heads * head_dim), default=None)
        else:
            size = head_dim if head_dim in SIZES.get(kernel, ()) else None
        return None if size is None else cls(kernel, dtype, size)

    def block(self, heads: int) -> tuple[int, int]:
        """Threads and bytes of dynamic shared memory of a block, as the launchers in csrc choose them."""
        if self.kernel == "add_norm":
            return 128, 0
        if self.kernel == "ema_sink_update":
            return 256, 0
        if self.kernel == "norm_rope_append":
            warps = -(-heads * self.size // 8 // 32)
            return 32 * warps, 2 * 4 * 20  # two float32 sums for each of at most 20 warps
        queries, keys = 128, 64 if self.size == 64 else 48
        return 128, 2 * self.size * (queries + 4 * keys)  # two buffers of keys and of values


@dataclass(frozen=True)
class Resources:
    """Registers, bytes of stack and of spills of a thread, and bytes of static shared memory of a block."""

    instance: Instance
    arch: str
    registers: int
    shared: int
    stack: int
    spills: int


def find_nvcc() -> str | None:
    """nvcc on PATH, under $CUDA_HOME or $CUDA_PATH, or where the toolkit is usually installed."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [shutil.which("nvcc"), *(f"{home}/bin/nvcc" for home in homes if home)]
    return next((place for place in places if place and Path(place).exists()), None)


def compile_kernel(
    source: Path, output: Path, archs: Sequence[str], *, ptx: bool = False, strict: bool = False
) -> str:
    """Compile one .cu file to device code.

    Args:
        archs: such as 80 or 90a; exactly one for PTX.
        ptx: write PTX, else a fat binary with machine code for each architecture.
        strict: fail on spills and on local memory.

    Returns:
        What ptxas reports (nothing for PTX); see `parse_report`.

    Raises:
        CompilerMissingError: without nvcc.
        RuntimeError: when the compiler fails, with its message.
    """
    nvcc = find_nvcc()
    if nvcc is None:
        raise CompilerMissingError("no compiler: nvcc is not on PATH, in $CUDA_HOME or in /usr/local/cuda")
    code = "compute" if ptx else "sm"
    command = [nvcc, *FLAGS, str(source), "-o", str(output), "-ptx" if ptx else "-fatbin"]
    command += [f"-gencode=arch=compute_{arch},code={code}_{arch}" for arch in archs]
    if not ptx:
        command += ["-Xptxas", ",".join(["-v", *(STRICT if strict else ())])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nvcc {source.name} failed:\n{done.stderr}{done.stdout}")
    return done.stderr + done.stdout


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


@dataclass(frozen=True)
class SM:
    """Limits of a streaming multiprocessor. The defaults are compute capability 9.0 (H100).

    Attributes:
        register_unit: registers are given out to a warp in multiples of this.
        reserved_shared: bytes of shared memory the system takes of each block.
    """

    threads: int = 2048
    blocks: int = 32
    registers: int = 65536
    register_unit: int = 256
    shared: int = 228 * 1024
    reserved_shared: int = 1024

    def resident_blocks(self, threads: int, registers: int, shared: int) -> int:
        """Blocks of a kernel that one SM holds at a time.

        Args:
            threads: of a block, whole warps.
            registers: of a thread.
            shared: bytes of a block, static and dynamic.
        """
        warps = -(-threads // 32)
        warp_registers = -(-registers * 32 // self.register_unit) * self.register_unit
        by_registers = self.registers // warp_registers // warps
        by_shared = self.shared // (shared + self.reserved_shared)
        return min(self.blocks, self.threads // threads, by_registers, by_shared)

    def occupancy(self, threads: int, registers: int, shared: int) -> float:
        """Part of the SM's thread slots that are in use."""
        return self.resident_blocks(threads, registers, shared) * threads / self.threads
