"""The `pyrf` command, in a process of its own or in this one, and what it wrote."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pyrf import cli

PROMPT = "a red circle moves right"
TIMEOUT = 300
"""Seconds for what should come at once; a loaded machine may take long."""


def command(*arguments: str | Path) -> list[str]:
    """`pyrf` with these arguments, for `subprocess`."""
    return [sys.executable, "-c", "from pyrf.cli import main; main()", *map(str, arguments)]


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `pyrf` in a process of its own."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=TIMEOUT)


def generate(tmp_path: Path, model: Path, *options: str) -> np.ndarray:
    """Frames of an in-process `pyrf generate` to a folder."""
    folder = tmp_path / f"frames{len(list(tmp_path.iterdir()))}"
    assert cli.run(["generate", PROMPT, "-o", f"{folder}/", "--model", str(model), *options]) == 0
    return read_folder(folder)


def read_folder(path: Path) -> np.ndarray:
    """Frames of a folder of pictures, uint8 [T, H, W, 3]."""
    return np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])


def shape_of(path: Path) -> tuple[int, ...]:
    """Of a video file's frames: (T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).shape
