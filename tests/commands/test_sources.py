"""`pyrf generate --source`: a file, a pipe and a camera are restyled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from pyrf.video import read_frames
from pyrf.video.live import CAMERAS
from pyrf.video.writer import Frames
from tests.support.random_bundle import HEIGHT, WIDTH

PROMPT = "a red circle moves right"


@pytest.fixture(scope="module")
def clip(random_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 21 frames."""
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    return Path(pipe("a blue square", num_frames=21).save(tmp_path_factory.mktemp("source") / "clip.mp4"))


def read(path: Path) -> Frames:
    return read_frames(path, height=HEIGHT, width=WIDTH, fps=16.0)


def generate(tmp_path: Path, random_bundle: Path, *options: str) -> Frames:
    path = tmp_path / "out.mp4"
    assert cli.run(["generate", PROMPT, "-o", str(path), "--model", str(random_bundle), *options]) == 0
    return read(path)


def test_the_video_ends_with_its_source_unless_told_otherwise(
    tmp_path: Path, random_bundle: Path, clip: Path
) -> None:
    weak = generate(tmp_path, random_bundle, "--source", str(clip), "--strength", "0")
    assert len(weak) == 21
    strong = generate(tmp_path, random_bundle, "--source", str(clip), "--strength=.9", "--follow-motion")
    assert np.abs(weak.astype(int) - strong).mean() > 5
    longer = generate(
        tmp_path, random_bundle, "--source", str(clip), "--strength=0", "--source-end=text", "--seconds=2"
    )
    assert len(longer) == 32
    assert np.abs(longer[:21].astype(int) - weak).mean() < 2
    assert len(generate(tmp_path, random_bundle, "--source", str(clip), "--seconds=.5")) == 8


def test_a_camera(tmp_path: Path, random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CAMERAS, sys.platform, ("lavfi", "testsrc=size=80x60:rate=30"))
    assert len(generate(tmp_path, random_bundle, "--source", "camera", "--seconds=.5")) == 8


def test_a_container_from_stdin(tmp_path: Path, random_bundle: Path, clip: Path) -> None:
    path = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "pyrf", "generate", PROMPT, "-o", str(path), "--source", "-"]
    command += ["--strength=0", "--model", str(random_bundle)]
    with clip.open("rb") as stdin:
        subprocess.run(command, stdin=stdin, check=True, capture_output=True)
    assert np.array_equal(
        read(path), generate(tmp_path, random_bundle, "--source", str(clip), "--strength=0")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strength=.5"], "--strength is for live video in; give --source too"),
        (["--source-end=text"], "--source-end is for live video in"),
        (["--source=-", "--strength=2"], "--strength must lie in 0..1, got 2"),
        (["--source=-", "--source-end=loop"], "--source-end must be stop or text, got 'loop'"),
        (["--source=-", "--image=x.png"], "not both"),
        (["--source=no-such.mp4"], "there is no such file"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    output = str(tmp_path / "out.mp4")
    assert cli.run(["generate", PROMPT, "-o", output, "--model=no/such/model", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_source_that_is_no_video_leaves_none(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing of the kind")
    output = tmp_path / "out.mp4"
    options = ["--source", str(bad), "--model", str(random_bundle)]
    assert cli.run(["generate", PROMPT, "-o", str(output), *options]) == 2
    assert "bad.mp4" in capsys.readouterr().err
    assert not output.exists()
