"""What is written says how its colours are meant, and a reader that believes it finds them again."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pyrf.serve.transports.clips import FragmentedMp4
from pyrf.serve.transports.frames import FrameEncoder
from pyrf.video import EncoderSettings, Video, open_writer, read_frames
from pyrf.video.writer import Frames

RANDOM = np.random.default_rng(0).integers(0, 256, (18, 3))
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255), (0, 200, 0), *RANDOM])


def flat(height: int, width: int) -> Frames:
    frames = np.zeros((len(COLOURS), height, width, 3), np.uint8)
    frames[:] = COLOURS[:, None, None]
    return frames


def by_the_book(frame: Any) -> NDArray[Any]:
    """RGB of a limited-range BT.709 frame, by the formulas of ITU-R BT.709; no code of FFmpeg converts."""
    planes = [np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1) for plane in frame.planes]
    y, u, v = (
        (plane[8, 8].astype(float) - low) / span
        for plane, low, span in zip(planes, (16, 128, 128), (219, 224, 224))
    )
    red, blue = y + 1.5748 * v, y + 1.8556 * u
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return np.rint(np.clip([red, green, blue], 0, 1) * 255)


def check_bt709(data: Any) -> None:
    with av.open(data) as container:
        stream = container.streams.video[0]
        frames: list[Any] = list(container.decode(stream))
        context: Any = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == 1
        assert {(int(frame.colorspace), int(frame.color_range)) for frame in frames} == {(1, 1)}
        assert len(frames) == len(COLOURS)
        for frame, colour in zip(frames, COLOURS):
            assert np.abs(by_the_book(frame) - colour).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(64, 96), (480, 832), (720, 1280)])
def test_mp4(tmp_path: Path, height: int, width: int) -> None:
    with open_writer(tmp_path / "a.mp4", 16) as writer:
        writer.write(flat(height, width))
    check_bt709(str(tmp_path / "a.mp4"))


@pytest.mark.parametrize("name", ["a.mov", "a.mkv", "a.webm", "a.m3u8"])
def test_other_containers(tmp_path: Path, name: str) -> None:
    best = EncoderSettings(crf=8 if name == "a.webm" else 18)
    with open_writer(tmp_path / name, 16, encoder=best) as writer:
        writer.write(flat(64, 96))
    check_bt709(str(tmp_path / name))


def test_the_container_says_it_too(tmp_path: Path) -> None:
    """Players that do not look into H.264 read the box `colr`: nclx, three ones, and no full range."""
    data = Video(flat(64, 96), 16).save(tmp_path / "a.mp4").read_bytes()
    place = data.index(b"colrnclx")
    assert data[place + 8 : place + 15] == b"\0\1\0\1\0\1\0"


@pytest.mark.parametrize(("height", "width"), [(64, 96), (720, 1280)])
def test_the_servers_clip(height: int, width: int) -> None:
    encoder = FragmentedMp4(height, width, 16)
    check_bt709(io.BytesIO(encoder.encode(flat(height, width)) + encoder.finish()))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.apng", "a.mov"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    path = Video(flat(64, 96), 10).save(tmp_path / name)
    found = read_frames(path, height=64, width=96, fps=10)
    assert np.abs(found.astype(int) - flat(64, 96)).max() <= 2


def test_another_programs_reader_finds_them_too(tmp_path: Path) -> None:
    """The command ffmpeg, of another version than the one that wrote them, by the tags alone."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("the command ffmpeg is not installed")
    for name in ("a.mp4", "a.webm", "a.mkv"):
        with open_writer(tmp_path / name, 16, encoder=EncoderSettings(crf=8)) as writer:
            writer.write(flat(64, 96))
        command = [ffmpeg, "-v", "error", "-i", str(tmp_path / name), "-f", "rawvideo", "-pix_fmt", "rgb24"]
        # Its default way to RGB is quick and a level or two coarser.
        made = subprocess.run(
            [*command, "-sws_flags", "accurate_rnd+full_chroma_int", "-"], capture_output=True
        )
        found = np.frombuffer(made.stdout, np.uint8).reshape(-1, 64, 96, 3)
        assert found.shape == flat(64, 96).shape
        assert np.abs(found.astype(int) - flat(64, 96)).max() <= 3


def test_the_servers_jpegs() -> None:
    encoder = FrameEncoder(90)
    try:
        for frame in flat(64, 96):
            with Image.open(io.BytesIO(encoder._jpeg(frame))) as image:
                found = np.asarray(image.convert("RGB")).astype(int)
            assert np.abs(found - frame).max() <= 2
    finally:
        encoder.close()
