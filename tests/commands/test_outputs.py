"""Where `pyrf generate` puts its video, and how good it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from pyrf.video import EncoderSettings, encoding, open_writer
from pyrf.video.encoding import MP4, WEBM, parse_bitrate
from tests.support.receivers import free_port, rtmp_server
from tests.support.video_files import ramp
from tests.video.test_network import wait_for_recordings

PROMPT = "a red circle"


def generate(model: Path, output: object, *options: str) -> int:
    return cli.run(["generate", PROMPT, "-o", str(output), "--seconds=1", "--model", str(model), *options])


@pytest.mark.parametrize("name", ["a.webm", "a.mov", "a.mkv", "a.apng", "a.jpg", "live/a.m3u8"])
def test_every_kind_is_written(tmp_path: Path, random_bundle: Path, name: str) -> None:
    assert generate(random_bundle, tmp_path / name) == 0
    if name == "a.jpg":
        with Image.open(tmp_path / name) as image:
            assert json.loads(image.info["comment"])["prompt"] == PROMPT
        return
    with av.open(str(tmp_path / name)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 16


def test_it_is_sent_to_an_rtmp_server_and_its_key_is_not_told(
    tmp_path: Path, random_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with rtmp_server(tmp_path, port):
        assert generate(random_bundle, f"rtmp://127.0.0.1:{port}/live/secret") == 0
        wait_for_recordings(tmp_path, 1)
    (path,) = tmp_path.glob("secret-*.flv")
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 16
    told = "".join(capsys.readouterr())
    assert f"rtmp://127.0.0.1:{port}/live/...: 16 frames" in told
    assert "secret" not in told
    assert generate(random_bundle, f"rtmp://127.0.0.1:{port}/live/secret") == 2
    assert "no receiver at rtmp://127.0.0.1" in capsys.readouterr().err


def test_raw_frames_are_those_of_the_stream(random_bundle: Path) -> None:
    """The command's stdout holds nothing else."""
    options = ["--raw", "--seconds=1", "--model", str(random_bundle), "--threads=1"]
    code = "from pyrf.cli import main; main()"
    command = [sys.executable, "-c", code, "generate", PROMPT, "-o", "-", *options]
    made = subprocess.run(command, capture_output=True, check=True)
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    found = np.frombuffer(made.stdout, np.uint8).reshape(16, pipe.height, pipe.width, 3)
    wanted = pipe(PROMPT, num_frames=16, seed=0).frames
    assert np.abs(found.astype(int) - wanted).max() <= 1  # other threads, other roundings
    assert b"stdout: 16 frames" in made.stderr


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.mp4", ["--raw"], "--raw is for stdout"),
        ("a.mp4", ["--crf=20", "--bitrate=1M"], "give one of them"),
        ("a.mp4", ["--crf=60"], r"must lie in 0\.\.51, got 60"),
        ("a.gif", ["--crf=20"], "gif has none of them"),
        ("a.png", ["--bitrate=1M"], "png has none of them"),
        ("a.mp4", ["--bitrate=fast"], "as 800k or 2.5M, got 'fast'"),
        ("a.mp4", ["--bitrate=1"], "bits per second, got 1"),
        ("a.mp4", ["--encoder=gpu"], "must be auto, software or hardware, got 'gpu'"),
        ("a.webm", ["--encoder=hardware"], "hardware encodes H.264 here"),
    ],
)
def test_what_an_output_does_not_have_is_refused_at_once(
    tmp_path: Path, name: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["generate", PROMPT, "-o", f"{tmp_path}/{name}", "--model", "none", *options]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert list(tmp_path.iterdir()) == []


def test_quality_and_bitrate_change_the_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 96, 3), np.uint8)
    sizes = {}
    for name, settings in {
        "best": EncoderSettings(crf=5),
        "usual": EncoderSettings(),
        "worst": EncoderSettings(crf=45),
        "rate": EncoderSettings(bitrate=300_000),
    }.items():
        with open_writer(tmp_path / f"{name}.mp4", 16, encoder=settings) as writer:
            writer.write(noise)
        sizes[name] = (tmp_path / f"{name}.mp4").stat().st_size
    assert sizes["best"] > sizes["usual"] > sizes["worst"]
    assert 8 * sizes["rate"] / 2 == pytest.approx(300_000, rel=0.35)


def test_where_hardware_is_missing_auto_takes_software_and_hardware_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "opens", lambda *_: False)
    auto = EncoderSettings().on_this_machine(MP4, 64, 96, 16, is_live=True)
    assert auto.codec == "libx264"
    with pytest.raises(ValueError, match=r"no hardware encodes H\.264 of 64 x 96 here"):
        EncoderSettings(encoder="hardware").on_this_machine(MP4, 64, 96, 16, is_live=False)


def test_where_hardware_is_there_live_outputs_take_it_and_files_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "opens", lambda made, *_: made.codec == "h264_nvenc")
    live = EncoderSettings(crf=23).of(MP4)
    made = EncoderSettings(crf=23).on_this_machine(live, 480, 832, 16, is_live=True)
    assert (made.codec, made.codec_options["cq"]) == ("h264_nvenc", "23")
    assert EncoderSettings().on_this_machine(MP4, 480, 832, 16, is_live=False).codec == "libx264"
    assert EncoderSettings().on_this_machine(WEBM, 480, 832, 16, is_live=True).codec == "libvpx-vp9"


def test_bitrates_are_read() -> None:
    assert [parse_bitrate(text) for text in ("800k", "2.5M", "1000000")] == [800_000, 2_500_000, 1_000_000]


def test_a_virtual_camera_gets_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package: no camera is here."""
    shown: list[Any] = []

    class Camera:
        def __init__(self, **options: Any) -> None:
            shown.append(options)

        def send(self, frame: Any) -> None:
            shown.append(frame.copy())

        def sleep_until_next_frame(self) -> None:
            pass

        def close(self) -> None:
            shown.append("closed")

    module = ModuleType("pyvirtualcam")
    module.__dict__.update(vars(SimpleNamespace(Camera=Camera)))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    with open_writer("camera:/dev/video9", 16) as writer:
        writer.write(ramp()[:3])
    options, *frames, last = shown
    assert options == {"width": 48, "height": 32, "fps": 16, "device": "/dev/video9"}
    assert np.array_equal(np.stack(frames), ramp()[:3])
    assert last == "closed"


def test_without_its_package_a_camera_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(ValueError, match=r"needs pyvirtualcam; run pip install '\.\[camera\]'"):
        open_writer("camera:", 16)


def test_without_a_desktop_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tkinter")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(ValueError, match="cannot open a window"), open_writer("window:", 16) as writer:
        writer.write(ramp()[:1])
