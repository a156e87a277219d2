"""pyrf without its native module: it says so once, and torch computes the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyrf.ops import native
from pyrf.pipeline import StreamingPipeline

ROOT = Path(__file__).parents[2]
HIDE = "import sys; sys.modules['pyrf._native'] = None; "
LOAD = "from pyrf.ops import native; import pyrf.ops.ring_attention; print(native.described())"


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_off_ignores_a_module_that_is_there() -> None:
    done = run(LOAD, PYRF_NATIVE="off")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "switched off by PYRF_NATIVE=off; torch computes in its place\n"
    assert done.stderr == ""


def test_auto_warns_once() -> None:
    done = run(HIDE + LOAD, PYRF_NATIVE="auto")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: pyrf's native module is not built") == 1


def test_on_refuses_when_there_is_none() -> None:
    done = run(HIDE + LOAD, PYRF_NATIVE="on")
    assert done.returncode != 0
    assert "PYRF_NATIVE=on, but pyrf's native module is not built" in done.stderr


def test_another_word_is_refused() -> None:
    done = run(LOAD, PYRF_NATIVE="maybe")
    assert done.returncode != 0
    assert "PYRF_NATIVE must be one of auto, on, off, got 'maybe'" in done.stderr


@pytest.mark.skipif(native.cpu is None, reason="the native module is not built")
def test_frames_are_the_same(tmp_path: Path) -> None:
    """Up to a level of 255 where a sum was rounded otherwise (docs/api.md)."""
    code = f"""
import sys, numpy
from pyrf import StreamingPipeline
pipe = StreamingPipeline.from_pretrained("tiny")
numpy.save({str(tmp_path / "off.npy")!r}, pipe("a red circle moves right", 33, seed=3).frames)
"""
    done = run(code, PYRF_NATIVE="off")
    assert done.returncode == 0, done.stderr
    frames = StreamingPipeline.from_pretrained("tiny")("a red circle moves right", 33, seed=3).frames
    assert np.abs(frames.astype(int) - np.load(tmp_path / "off.npy")).max() <= 1


def test_the_golden_rollout_holds(tmp_path: Path) -> None:
    """The tests of the loop and of the ops pass without it, too."""
    tests = ["tests/loop/test_golden_rollout.py", "tests/ops/test_ops.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=os.environ | {"PYRF_NATIVE": "off", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
