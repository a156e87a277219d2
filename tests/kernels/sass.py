"""Machine code of a fat binary, by `cuobjdump` and `nvdisasm`: the instructions of each kernel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

_ARCH = re.compile(r"\s*code for (sm_\w+)")
_FUNCTION = re.compile(r"\s*Function : (\w+)")
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)")


def find_cuobjdump() -> str | None:
    """On PATH, or from the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm."""
    spec = find_spec("nvidia")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    packaged = (path for folder in folders for path in Path(folder).glob("*/bin/cuobjdump"))
    return shutil.which("cuobjdump") or next((str(path) for path in packaged), None)


def disassemble(binary: Path) -> dict[tuple[str, str], list[str]]:
    """Opcodes with their modifiers, in order, by architecture and mangled name.

    Raises:
        subprocess.CalledProcessError: when the tool fails.
    """
    tool = find_cuobjdump()
    assert tool is not None, "look for the tool first"
    path = os.pathsep.join((str(Path(tool).parent), os.environ.get("PATH", "")))  # it calls nvdisasm
    done = subprocess.run(
        [tool, "-sass", str(binary)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    )
    found: dict[tuple[str, str], list[str]] = {}
    arch, code = "", []
    for line in done.stdout.splitlines():
        if match := _ARCH.match(line):
            arch = match[1]
        elif match := _FUNCTION.match(line):
            code = found.setdefault((arch, match[1]), [])
        elif match := _INSTRUCTION.match(line):
            code.append(match[1])
    return found
