"""The bundle that GPUs are timed with: random weights that keep the scale of what passes, at any size."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pyrf
from tests.support import networks

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_a_stream_from_it_is_neither_flat_nor_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import random_wan

    sizes = replace(networks.MODEL, text_len=16)
    monkeypatch.setattr(random_wan, "MODELS", {"Wan2.1-T2V-1.3B": sizes})
    monkeypatch.setattr(sys, "argv", ["random_wan.py", str(tmp_path / "wan"), "--codec", "taehv"])
    random_wan.main()
    pipe = pyrf.StreamingPipeline.from_pretrained(str(tmp_path / "wan"))
    assert (pipe.height, pipe.width) == (480, 832)
    frames = pipe("a red circle", num_frames=9, height=32, width=48).frames
    assert 5 < frames.std() < 100
