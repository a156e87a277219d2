"""What nvcc makes of the kernels for each architecture, under flags that refuse spills."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from emulator import CSRC, ROOT, with_includes

CACHE = ROOT / "build" / "nvcc"
ARCHITECTURES = ("80", "90a", "100")
FLAGS = ("-std=c++17", "-O3", "-fmad=false", "-Xptxas")
FLAGS += ("-v,--warn-on-spills,--warn-on-local-memory-usage,-Werror",)


class Usage(NamedTuple):
    """The compiler's report on one instance of a kernel."""

    kernel: str
    dtype: str
    head_dim: int
    registers: int
    stack: int
    spills: int


def find_nvcc() -> str | None:
    """The compiler on PATH or at the toolkit's usual place."""
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def _report(kernel: str, architecture: str) -> str:
    """The compiler's messages for a kernel; kept, for they take seconds."""
    nvcc = find_nvcc()
    assert nvcc is not None, "there is no nvcc"
    source = CSRC / f"{kernel}.cu"
    texts: dict[Path, str] = {}
    with_includes(source, texts)
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256("\0".join([version, *FLAGS, *texts.values()]).encode()).hexdigest()[:24]
    kept = CACHE / f"{kernel}-{architecture}-{key}.json"
    if not kept.exists():
        target = f"arch=compute_{architecture},code=sm_{architecture}"
        command = [nvcc, *FLAGS, "-gencode", target, "-cubin", str(source), "-o", "/dev/null"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(result.stdout + result.stderr))
    return json.loads(kept.read_text())


def usage(kernel: str, architecture: str) -> list[Usage]:
    """Compile a kernel for an architecture.

    Returns:
        An entry for each dtype and head_dim.

    Raises:
        RuntimeError: when it does not compile, or a warning, such as of a spill, was raised.
    """
    found = []
    for part in _report(kernel, architecture).split("Compiling entry function")[1:]:
        dtype, head_dim = re.search(r"_kernelINS_\d(Bf16|Fp16)ELi(\d+)E", part).groups()
        numbers = [
            int(re.search(pattern, part)[1])
            for pattern in (r"Used (\d+) registers", r"(\d+) bytes stack frame", r"(\d+) bytes spill stores")
        ]
        found.append(Usage(kernel, dtype.lower(), int(head_dim), *numbers))
    return found
