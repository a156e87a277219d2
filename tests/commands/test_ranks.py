"""`pyrf generate` and `pyrf bench` as the ranks that torchrun starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrf.backends.torch.parallel import loading
from pyrf.backends.torch.parallel.messages import Plan
from pyrf.pipeline import StreamingPipeline
from tests.support.forked import end_of, ranks

PROMPT = "a red circle moves right"
TIMEOUT_S = 300
PATIENCE_S = 4.0


def test_generate(tmp_path: Path, random_bundle: Path) -> None:
    options = ("--model", str(random_bundle), "--seconds", "2", "--seed", "4", "--at", "1:a blue square")
    with ranks("generate", PROMPT, *options, "-o", f"{tmp_path}/", "--decoder-rank", "1") as commands:
        (first, told), (second, rest) = (end_of(command) for command in commands)
        assert (first, second) == (0, 0), told + rest
        assert "32 frames, 2.00 s of video" in told
        assert "frames" not in rest  # rank 0 alone speaks
    one = StreamingPipeline.from_pretrained(str(random_bundle))
    expected = one(PROMPT, num_frames=32, seed=4, timeline={"1": "a blue square"}).frames
    made = np.stack([np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("*.png"))])
    assert made.shape == expected.shape
    assert np.abs(made.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGKILL, "ended"), (signal.SIGSTOP, "hangs: it gives")]
)
def test_a_lost_rank(
    number: signal.Signals, state: str, tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyrf.commands.progress.EVERY_S", 0.0)
    monkeypatch.setattr(loading, "Plan", partial(Plan, patience_s=PATIENCE_S))
    output = tmp_path / "endless.mp4"
    options = ("generate", PROMPT, "--model", str(random_bundle), "--seconds", "1000", "-o", str(output))
    with ranks(*options) as (first, second):
        while "%" not in (line := first.told.readline()):
            assert line, "rank 0 ended"
        assert second.process.pid is not None
        os.kill(second.process.pid, number)
        code, told = end_of(first)
        assert code == 2
        assert f"error: rank 1 {state}" in told
        assert "the stream on these 2 ranks has ended" in told
    assert not list(tmp_path.iterdir())


def test_both_ways_to_say_how_many() -> None:
    with ranks("generate", PROMPT, "-o", "x.mp4", "--gpus-per-stream", "2") as (first, _):
        code, told = end_of(first)
        assert code == 2
        assert "leave out --gpus-per-stream" in told


@pytest.mark.slow
def test_torchrun(random_bundle: Path) -> None:
    folder = str(Path(sys.executable).parent)
    torchrun, pyrf = (shutil.which(name, path=folder) for name in ("torchrun", "pyrf"))
    assert torchrun is not None
    assert pyrf is not None
    command = [torchrun, "--nproc-per-node", "2", "--no-python", pyrf, "bench", "--model", str(random_bundle)]
    done = subprocess.run(
        [*command, "--chunks", "2", "--repeats", "1", "--warm-up", "0", "--json"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"]["gpus_per_stream"] == 2
