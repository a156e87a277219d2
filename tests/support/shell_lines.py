"""Command lines that pages show in blocks: found, and told from the other text of such blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

SHELLS = ("sh", "bash", "console", "shell")
PROGRAMS = (
    *(
        "apt",
        "apt-get",
        "bash",
        "brew",
        "cd",
        "chmod",
        "conda",
        "cp",
        "curl",
        "docker",
        "export",
        "ffmpeg",
        "ffplay",
    ),
    *(
        "ffprobe",
        "git",
        "helm",
        "kubectl",
        "make",
        "mkdir",
        "mkdocs",
        "mpirun",
        "mv",
        "mypy",
        "nginx",
        "npm",
        "npx",
    ),
    *(
        "nvidia-smi",
        "openssl",
        "opentelemetry-instrument",
        "pip",
        "pyrf",
        "pytest",
        "python",
        "python3",
        "rm",
    ),
    *("ruff", "sh", "source", "sudo", "systemctl", "tensorboard", "torchrun", "uv", "wget"),
)
COMMAND = re.compile(
    rf"(?:[A-Z_]+=\S+ +)*(?:\S*/)?(?:{'|'.join(PROGRAMS)}|\.ci/\w+|\S+\.sh|[A-Z]+_PYTHON)(?=\s|$)"
)
"""Of a block that is only indented: its first word is a program, or stands for a Python."""


def shell_lines(page: Path) -> list[str]:
    """Commands of a page's blocks, each in one line and without its comment.

    In a shell's block every line is one. In a block that is only indented, a line is one by how it begins.
    """
    lines = (" ".join(re.split(r"(?:^|\s)#\s", line)[0].split()) for line in _written(page))
    return [line for line in lines if line]


def _written(page: Path) -> Iterator[str]:
    kind: str | None = None
    for line in page.read_text().replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            kind = line.strip(" `") if kind is None else None
        elif kind in SHELLS or (kind is None and line.startswith("    ") and COMMAND.match(line.lstrip())):
            yield line
