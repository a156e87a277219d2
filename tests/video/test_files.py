"""Files written whole or not at all, of every kind."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from pyrf.video.encoded import Mp4Writer
from pyrf.video.encoder import Encoder
from pyrf.video.encoding import LIVE_MP4
from pyrf.video.files import Video, check_output, open_writer
from pyrf.video.pictures import SheetWriter
from pyrf.video.writer import Frames
from tests.support.video_files import decode, ramp

KINDS = ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif", "a.webp", "a.apng", "a.png", "a.jpg", "a/"]


@pytest.fixture
def frames() -> Frames:
    return ramp()


def write(path: str | Path, *parts: Frames, error: type[BaseException] | None = None) -> None:
    with open_writer(path, 16) as writer:
        for part in parts:
            writer.write(part)
        if error:
            raise error


def test_mp4_is_h264_yuv420p_at_its_rate(tmp_path: Path, frames: Frames) -> None:
    path = Video(frames, 16).save(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 16
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(20 / 16)
    back = decode(path)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 4


@pytest.mark.parametrize("fps", [7.5, 12.5, 23.976, 24000 / 1001, 29.97, 30000 / 1001, 47.952])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "live.mp4"])
def test_a_frame_rate_need_not_be_whole(tmp_path: Path, name: str, fps: float) -> None:
    """Each frame comes when it is due, also after some seconds: a rounded rate is two frames off by then."""
    path, frames = tmp_path / name, np.zeros((150, 16, 16, 3), np.uint8)
    frames[:] = np.arange(20, 170, dtype=np.uint8)[:, None, None, None]
    if name == "live.mp4":
        with path.open("wb") as file:
            encoder = Encoder(file, LIVE_MP4, height=16, width=16, fps=fps)
            for frame in frames:
                encoder.append(frame)
            encoder.finish()
    else:
        Video(frames, fps).save(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if path.suffix == ".mp4":
            assert float(stream.average_rate or 0) == pytest.approx(fps, rel=1e-6)
        times = [frame.time for frame in container.decode(stream)]
    ticks = 0.01 if name == "a.gif" else 1e-4  # a GIF counts in hundredths of a second
    assert times == pytest.approx([i / fps for i in range(150)], abs=ticks)


def test_gif_loops_and_keeps_the_pictures(tmp_path: Path, frames: Frames) -> None:
    path = Video(frames, 16).save(tmp_path / "a.gif")
    with Image.open(path) as image:
        assert isinstance(image, GifImageFile)
        assert image.n_frames == 20
        assert image.info["loop"] == 0
    back = decode(path)
    assert np.abs(back.astype(int) - frames).mean() < 8
    # The mean over a frame passes dithering and palettes: the ramp in time must be there.
    assert np.abs(back[..., 2].mean(axis=(1, 2)) - (20 + 8 * np.arange(20))).max() < 4


def test_webp_loops_and_keeps_the_pictures(tmp_path: Path, frames: Frames) -> None:
    path = Video(frames, 16).save(tmp_path / "a.webp")
    with Image.open(path) as image:
        assert image.is_animated  # type: ignore[attr-defined]
        assert image.info["loop"] == 0
    back = decode(path)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 8


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [("a.mov", "mov", "h264"), ("a.mkv", "matroska", "h264"), ("a.webm", "matroska", "vp9")],
)
def test_containers_keep_the_pictures(
    tmp_path: Path, frames: Frames, name: str, container: str, codec: str
) -> None:
    path = Video(frames, 16).save(tmp_path / name)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert container in file.format.name
        assert stream.codec_context.name == codec
        assert stream.average_rate == 16
        times = [frame.time for frame in file.decode(stream)]
    assert times == pytest.approx([i / 16 for i in range(20)], abs=1e-3)
    assert np.abs(decode(path).astype(int) - frames).mean() < 4
    brand = {"a.mov": b"ftypqt", "a.mkv": b"matroska", "a.webm": b"webm"}[name]
    assert brand in path.read_bytes()[:64]


def test_apng_holds_every_frame_exactly_and_loops(tmp_path: Path, frames: Frames) -> None:
    path = Video(frames, 16).save(tmp_path / "a.apng")
    assert np.array_equal(decode(path), frames)
    with Image.open(path) as image:
        assert (image.info["loop"], image.info["duration"]) == (0, 62.5)


def test_a_jpeg_is_the_sheet_of_the_png(tmp_path: Path, frames: Frames) -> None:
    exact, jpeg = (Video(frames, 16).save(tmp_path / name) for name in ("a.png", "a.jpg"))
    with Image.open(exact) as wanted, Image.open(jpeg) as image:
        assert image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - np.asarray(wanted)).mean() < 2


def test_folder_holds_every_frame_exactly(tmp_path: Path, frames: Frames) -> None:
    Video(frames, 16).save(f"{tmp_path}/frames/")
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"frame_{i:06d}.png" for i in range(20)]
    for i, name in enumerate(names):
        with Image.open(tmp_path / "frames" / name) as image:
            assert np.array_equal(np.asarray(image), frames[i])


def test_folder_may_exist_if_empty(tmp_path: Path, frames: Frames) -> None:
    (tmp_path / "frames").mkdir()
    Video(frames, 16).save(tmp_path / "frames")
    assert len(list((tmp_path / "frames").iterdir())) == 20


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png", "frames/", "frames"])
@pytest.mark.parametrize("exists", [True, False])
def test_symlinks_are_followed(tmp_path: Path, frames: Frames, name: str, exists: bool) -> None:
    real, link = tmp_path / "there" / "real", tmp_path / name.rstrip("/")
    real.parent.mkdir()
    link.symlink_to(Path("there") / "real")
    is_folder = not link.suffix
    if exists and is_folder:
        real.mkdir()
    elif exists:
        real.write_text("old")
    check_output(f"{tmp_path}/{name}")
    Video(frames, 16).save(f"{tmp_path}/{name}")
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([link.name, "there"])
    assert list(real.parent.iterdir()) == [real]
    if is_folder:
        assert len(list(real.iterdir())) == 20
    else:
        with av.open(str(real)) as container:
            assert container.streams.video


def test_a_mount_point_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk")
    for name in ("disk/", "link"):
        with pytest.raises(ValueError, match="mount point"):
            check_output(f"{tmp_path}/{name}")
    check_output(f"{tmp_path}/disk/new/")
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize("count", [1, 5, 24, 25, 81, 500])
def test_sheet_shows_frames_at_even_distances(tmp_path: Path, count: int) -> None:
    writer = SheetWriter(tmp_path / "a.png", 16)
    with writer:
        for i in range(count):
            writer.write(np.full((1, 8, 8, 3), i % 251, np.uint8))
    stride = next(s for s in (1, 2, 4, 8, 16, 32) if len(range(0, count, s)) <= 24)
    shown = range(0, count, stride)
    with Image.open(tmp_path / "a.png") as image:
        sheet = np.asarray(image)
    columns = min(6, len(shown))
    for tile, i in enumerate(shown):
        row, column = divmod(tile, columns)
        assert (sheet[row * 10 : row * 10 + 8, column * 10 : column * 10 + 8] == i % 251).all()
    assert sheet.shape[:2] == (10 * -(-len(shown) // columns) - 2, 10 * columns - 2)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("a.mkv", "a.webm")])
def test_chunks_give_the_same_file_as_the_whole(tmp_path: Path, frames: Frames, name: str) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    Video(frames, 16).save(f"{tmp_path}/whole/{name}")
    write(f"{tmp_path}/parts/{name}", frames[:9], frames[9:12], frames[12:])
    whole, parts = (sorted(p for p in (tmp_path / d).rglob("*") if p.is_file()) for d in ("whole", "parts"))
    assert len(whole) == len(parts) > 0
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(whole, parts))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", [*KINDS, "a.m3u8"])
def test_an_error_leaves_nothing(tmp_path: Path, frames: Frames, name: str, error: type) -> None:
    with pytest.raises(error):
        write(f"{tmp_path}/{name}", frames, error=error)
    assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_the_old_file(tmp_path: Path, frames: Frames) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        write(path, frames, error=RuntimeError)
    assert path.read_bytes() == b"old"
    Video(frames, 16).save(path)
    assert len(decode(path)) == 20
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.avi", r"unknown extension '\.avi'; use \.mp4, \.mov, \.mkv, \.webm, \.gif"),
        ("missing/a.mp4", "No such file or directory"),
        ("missing/a/", "No such file or directory"),
        ("file/a.mp4", "Not a directory"),
        ("file/", "it is a file"),
        ("full/", "not empty"),
        ("full", "not empty"),
        ("full.mp4", "it is a directory"),
        ("loop/", "symlinks form a loop"),
        ("astray/", "No such file or directory"),
        ("astray.mp4", "No such file or directory"),
    ],
)
def test_unwritable_outputs_are_refused_at_once(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("x")
    for folder in ("full", "full.mp4"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").touch()
    (tmp_path / "loop").symlink_to("loop")
    for link in ("astray", "astray.mp4"):
        (tmp_path / link).symlink_to("missing/x")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        check_output(f"{tmp_path}/{name}")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_address_that_nothing_sends_to_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"unknown address 'ftp://'; use rtmp://, rtmps://, srt://, udp://"):
        check_output("ftp://host/live")
    assert list(tmp_path.iterdir()) == []


def test_check_output_leaves_nothing(tmp_path: Path) -> None:
    for name in (*KINDS, "a.jpeg", "new/a.m3u8"):
        check_output(f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


def test_bad_frames_are_refused(tmp_path: Path, frames: Frames) -> None:
    refused: list[tuple[Any, str]] = [
        (frames.astype(np.float32), "uint8"),
        (frames[None], "one by one"),
        (frames[:, :31], "multiples of 2"),
        (frames[:, :0], "multiples of 2"),
    ]
    for bad, message in refused:
        with pytest.raises(ValueError, match=message):
            Video(bad, 16).save(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="size of the first"):
        write(tmp_path / "a.mp4", frames, frames[:, :16])
    for fps in (0, -1, 1e-5, 1e12, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"fps must lie in 0\.001\.\.100000, got"):
            Video(frames, fps).save(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "width"), [("a.mp4", 20_000), ("a.gif", 70_000)])
def test_what_an_encoder_refuses_is_one_line(tmp_path: Path, name: str, width: int) -> None:
    with pytest.raises(ValueError, match=rf"cannot write .*{name} in frames of 2 x {width}: ") as error:
        Video(np.zeros((1, 2, width, 3), np.uint8), 16).save(tmp_path / name)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["_append", "_finish"])
def test_a_full_disk_is_one_line(
    tmp_path: Path, frames: Frames, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise av.error.OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Mp4Writer, step, fail)
    with pytest.raises(ValueError, match=r"a\.mp4 in frames of 32 x 48: No space left on device; choose"):
        Video(frames, 16).save(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
