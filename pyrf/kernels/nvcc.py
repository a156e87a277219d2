"""nvcc: where it is, and how it compiles a kernel. Needs no GPU; the sources of `csrc/` need a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "csrc"
FLAGS = ("-std=c++17", "-O3", "-fmad=false")
STRICT = ("--warn-on-spills", "--warn-on-local-memory-usage", "-Werror")
"""Options of ptxas under which a kernel whose registers do not fit is refused."""


class CompilerMissingError(RuntimeError):
    """There is no nvcc here, or nothing to compile."""


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
        What ptxas reports; nothing for PTX. `pyrf.reports.kernels.parse_report` reads it.

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
