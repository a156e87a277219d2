"""Frames one by one: of files as `read_frames` gives them, of pipes that cannot be read twice, of cameras."""

from __future__ import annotations

import io
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pyrf.video import Video, iter_camera, iter_frames, read_frames
from pyrf.video.live import CAMERAS, iter_pipe
from pyrf.video.writer import Frames


@pytest.fixture
def frames() -> Frames:
    moving = np.zeros((20, 32, 48, 3), np.uint8)
    for i, frame in enumerate(moving):
        frame[:, 2 * i : 2 * i + 8] = (200, 10 * i, 40)
    return moving


class Pipe(io.RawIOBase):
    """Gives its bytes once, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return self._data.readinto(buffer)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.webp"])
@pytest.mark.parametrize("fps", [16.0, 24.0, 10.0])
def test_they_are_the_frames_of_read_frames(tmp_path: Path, frames: Frames, name: str, fps: float) -> None:
    Video(frames, 16.0).save(tmp_path / name)
    expected = read_frames(tmp_path / name, height=16, width=32, fps=fps)
    assert np.array_equal(
        np.stack(list(iter_frames(tmp_path / name, height=16, width=32, fps=fps))), expected
    )


def test_a_pipe_gives_what_the_file_does(tmp_path: Path, frames: Frames) -> None:
    path = Video(frames, 16.0).save(tmp_path / "clip.mp4")
    found = list(iter_pipe(Pipe(Path(path).read_bytes()), height=16, width=32, fps=16.0))  # type: ignore[arg-type]
    assert np.array_equal(np.stack(found), read_frames(path, height=16, width=32, fps=16.0))


def test_what_holds_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read stdin"):
        next(iter_pipe(Pipe(b"nothing of the kind"), height=16, width=32, fps=16.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no such file"):
        next(iter_frames(tmp_path / "no.mp4", height=16, width=32, fps=16.0))


def test_a_camera_gives_frames_in_its_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's generated picture stands in for the device."""
    monkeypatch.setitem(CAMERAS, sys.platform, ("lavfi", "testsrc=size=80x60:rate=30"))
    camera = iter_camera()
    found = list(islice(camera, 3))
    camera.close()  # type: ignore[attr-defined]
    assert [frame.shape for frame in found] == [(60, 80, 3)] * 3
    assert found[0].std() > 50


def test_a_camera_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="cannot open the camera /dev/no-such-camera"):
        next(iter_camera("/dev/no-such-camera"))
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(ValueError, match="cameras are not read on plan9"):
        next(iter_camera())
