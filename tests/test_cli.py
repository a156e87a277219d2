"""The `pyrf` command: in a process of its own for the main paths, through `run` for the rest."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import pyrf
from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from random_bundle import HEIGHT, WIDTH

PROMPT = "a red circle moves right"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", "from pyrf.cli import main; main()", *map(str, arguments)]


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120)


def shape_of(path: Path) -> tuple[int, ...]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).shape


def test_help_and_version_need_no_torch() -> None:
    code = (
        "import sys\nfrom pyrf.cli import run\n"
        "for line in (['--help'], ['generate', '--help'], ['--version'], []):\n"
        "    assert run(line) == 0\n"
        "print('heavy:', *(m for m in ('torch', 'numpy', 'av', 'transformers') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pyrf {pyrf.__version__}" in result.stdout
    assert "--at" in result.stdout
    assert result.stdout.strip().endswith("heavy:")
