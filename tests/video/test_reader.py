"""Images and videos read back: fitted, resampled, or refused in one line."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pyrf.video.files import Video
from pyrf.video.reader import read_frames
from pyrf.video.writer import Frames
from tests.support.video_files import decode, ramp


@pytest.fixture
def frames() -> Frames:
    return ramp()


def test_read_image_covers_and_crops(tmp_path: Path) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[10:30] = 255  # the rows that a 2:1 crop keeps
    Image.fromarray(picture).save(tmp_path / "a.png")
    frames = read_frames(tmp_path / "a.png", height=32, width=64, fps=16)
    assert frames.shape == (1, 32, 64, 3)
    assert frames[:, 2:-2].min() > 200


def test_read_image_turns_as_the_camera_was(tmp_path: Path) -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, so left becomes top
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif)
    frames = read_frames(tmp_path / "a.jpg", height=48, width=32, fps=16)
    assert frames[0, :20].min() > 200
    assert frames[0, 28:].max() < 60


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_read_video_resamples_and_keeps_the_end(tmp_path: Path, frames: Frames, name: str) -> None:
    path = Video(frames, 16).save(tmp_path / name)
    same = read_frames(path, height=32, width=48, fps=16)
    assert len(same) == 20
    half = read_frames(path, height=32, width=48, fps=8)
    assert len(half) == 10
    assert np.array_equal(half, same[::2])
    assert len(read_frames(path, height=32, width=48, fps=32)) in (39, 40)
    assert np.array_equal(read_frames(path, height=32, width=48, fps=16, limit=5), same[-5:])


@pytest.mark.parametrize(("fps", "count"), [(7.5, 375), (12.5, 625), (23.976, 1198), (29.97, 1497)])
def test_read_video_resamples_to_a_rate_that_is_not_whole(tmp_path: Path, fps: float, count: int) -> None:
    """799 frames at 16 per second last 49.9375 s."""
    path = Video(np.zeros((799, 16, 16, 3), np.uint8), 16).save(tmp_path / "a.mp4")
    assert len(read_frames(path, height=16, width=16, fps=fps)) == count


def remux(source: Path, target: Path, container_format: str, shift: int = 0) -> Path:
    """Put a video's stream into another container, later by `shift` seconds."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container_format) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                assert packet.pts is not None
                packet.pts += int(shift / packet.time_base)
                packet.dts += int(shift / packet.time_base)
                packet.stream = stream
                new.mux(packet)
    return target


def test_read_counts_from_the_first_frame(tmp_path: Path, frames: Frames) -> None:
    path = remux(Video(frames, 16).save(tmp_path / "a.mp4"), tmp_path / "a.ts", "mpegts", shift=1000)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time > 999
    assert np.array_equal(read_frames(path, height=32, width=48, fps=16), decode(path))


def test_read_takes_a_stream_without_times(tmp_path: Path, frames: Frames) -> None:
    path = remux(Video(frames, 25).save(tmp_path / "a.mp4"), tmp_path / "a.h264", "h264")
    with av.open(str(path)) as container:
        assert {frame.time for frame in container.decode(video=0)} == {None}
        assert container.streams.video[0].average_rate == 25
    assert np.array_equal(read_frames(path, height=32, width=48, fps=25), decode(path))
    assert len(read_frames(path, height=32, width=48, fps=12.5)) == 10


def test_read_scales_a_frame_once(tmp_path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Video(frames, 16).save(tmp_path / "a.mp4")
    resize, sizes = Image.Image.resize, []

    def counted(picture: Image.Image, size: tuple[int, int], *arguments: Any, **options: Any) -> Image.Image:
        sizes.append(size)
        return resize(picture, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", counted)
    assert len(read_frames(path, height=16, width=16, fps=160)) == 200
    assert sizes == 20 * [(16, 16)]
    sizes.clear()
    assert len(read_frames(path, height=16, width=16, fps=160, limit=25)) == 25
    assert len(sizes) == 3  # of those before, none is converted


def test_unreadable_files_are_refused(tmp_path: Path, frames: Frames) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.gif").touch()
    for kind in ("png", "gif", "mp4"):
        path = Video(frames, 16).save(tmp_path / f"cut.{kind}")
        path.write_bytes(path.read_bytes()[:100])
    for name in ("missing.png", "text.mp4", "empty.gif", "cut.png", "cut.gif", "cut.mp4"):
        with pytest.raises(ValueError, match="cannot read") as error:
            read_frames(tmp_path / name, height=32, width=48, fps=16)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", [EOFError(), SyntaxError("a"), RuntimeError("a"), IndexError("a")])
def test_whatever_a_decoder_raises_is_one_line(
    tmp_path: Path, frames: Frames, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    Video(frames, 16).save(tmp_path / "a.png")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(ValueError, match=r"cannot read .*a\.png as an image or video: (a|it is damaged)$"):
        read_frames(tmp_path / "a.png", height=32, width=48, fps=16)
