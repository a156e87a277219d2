"""What is kept of a video that could not be finished, and of one that could."""

from __future__ import annotations

import io
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pyrf.partial import KeptError
from pyrf.printing import ReaderGoneError
from pyrf.video import Video, open_writer
from pyrf.video.encoded import GifWriter, Mp4Writer
from pyrf.video.pictures import FolderWriter
from pyrf.video.writer import FileWriter, Frames
from tests.support.video_files import decode, ramp


def write(path: Path | str, frames: Frames, error: BaseException, *, keep: bool = True) -> None:
    with open_writer(path, 16, keep_partial=keep) as writer:
        writer.write(frames)
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png", "a/"])
def test_what_is_whole_of_a_stopped_video_is_kept_if_asked(
    tmp_path: Path, name: str, error: type[BaseException]
) -> None:
    with pytest.raises(error) as raised:
        write(f"{tmp_path}/{name}", ramp(), error())
    assert raised.value.__notes__ == [f"(20 frames kept as {tmp_path}/{name.rstrip('/')})"]
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]
    if name == "a/":
        assert len(list((tmp_path / "a").iterdir())) == 20
    elif name == "a.png":
        with Image.open(tmp_path / name) as image:
            assert image.size == (6 * 50 - 2, 4 * 34 - 2)
    else:
        assert decode(tmp_path / name).shape == ramp().shape


def test_a_part_never_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    Video(ramp(), 16).save(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError) as error:
        write(path, ramp()[:1], RuntimeError())
    assert error.value.__notes__ == [f"(1 frame kept as {tmp_path}/a-1.mp4)"]
    assert path.read_bytes() == before
    assert len(decode(tmp_path / "a-1.mp4")) == 1


def test_of_nothing_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        write(tmp_path / "a.mp4", ramp()[:0], RuntimeError())
    assert error.value.__notes__ == ["(there was no frame to keep)"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.png"])
def test_a_whole_video_is_kept_when_its_folder_is_removed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Video(ramp(), 16).save(tmp_path / name)
    (tmp_path / "there").mkdir()
    writer = open_writer(tmp_path / "there" / name, 16)
    writer.write(ramp()[:9])
    shutil.rmtree(tmp_path / "there")
    writer.write(ramp()[9:])
    with pytest.raises(KeptError) as error:
        writer.close()
    assert error.value.kept.read_bytes() == (tmp_path / name).read_bytes()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that is full at some size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_when_the_disk_is_full_the_end_still_fits(tmp_path: Path, name: str) -> None:
    """Noise of 64 x 96 makes some 20 KB per frame; 4 MB hold some of it."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), np.uint8)
    with files_of_at_most(4 * 2**20):
        writer = open_writer(tmp_path / name, 16, keep_partial=True)

        def fill() -> None:
            with writer:
                while writer.num_frames < 10_000:
                    writer.write(noise)

        with pytest.raises((OSError, ValueError), match="File too large") as error:
            fill()
    assert error.value.__notes__ == [f"({writer.num_frames} frames kept as {tmp_path / name})"]
    assert len(decode(tmp_path / name)) == writer.num_frames > 20
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_disk_with_little_room_holds_a_small_video(tmp_path: Path) -> None:
    Video(ramp(), 16).save(tmp_path / "a.mp4")
    with files_of_at_most(100_000):
        Video(ramp(), 16).save(tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_closed_writer_is_not_closed_again(tmp_path: Path) -> None:
    def stop() -> None:
        with open_writer(tmp_path / "a.mp4", 16) as writer:
            writer.write(ramp())
            writer.close()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert len(decode(tmp_path / "a.mp4")) == 20


def test_a_killed_writer_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    code = (
        "import os, numpy as np\nfrom pyrf.video import open_writer\n"
        f"writer = open_writer({str(tmp_path / 'a.mp4')!r}, 16)\n"
        "writer.write(np.zeros((40, 32, 32, 3), np.uint8)); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    Video(ramp(), 16).save(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


class Pipe(io.RawIOBase):
    """Takes little at a time and cannot seek; its reader goes away after `most` bytes."""

    def __init__(self, most: float = float("inf")) -> None:
        self.data, self.most = b"", most

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        if len(self.data) > self.most:
            raise BrokenPipeError(32, "Broken pipe")
        taken = bytes(data)[:1000]  # type: ignore[call-overload]
        self.data += taken
        return len(taken)


def test_a_binary_file_gets_mp4_that_plays_before_it_ends() -> None:
    pipe = Pipe()
    with open_writer(pipe, 16) as writer:
        for start in (0, 9):
            writer.write(ramp()[start : start + 9])
        with av.open(io.BytesIO(pipe.data), "r") as container:
            assert len(list(container.decode(video=0))) >= 9
        writer.write(ramp()[18:])
    with av.open(io.BytesIO(pipe.data), "r") as container:
        back = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert back.shape == ramp().shape
    assert np.abs(back.astype(int) - ramp()).mean() < 4


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a/"])
def test_ctrl_c_within_a_frame_waits_for_its_end(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C code would print the exception and go on, and half a picture could not be kept."""
    kinds: dict[str, type[FileWriter]] = {"a.mp4": Mp4Writer, "a.gif": GifWriter, "a/": FolderWriter}
    kind = kinds[name]
    append = kind._append

    def interrupted(self: FileWriter, frame: Frames) -> None:
        if self.num_frames == 10:
            signal.raise_signal(signal.SIGINT)
        append(self, frame)

    monkeypatch.setattr(kind, "_append", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def make() -> None:
        with open_writer(f"{tmp_path}/{name}", 16, keep_partial=True) as writer:
            writer.write(ramp())

    try:
        with pytest.raises(KeyboardInterrupt) as stopped:
            make()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.__notes__ == [f"(11 frames kept as {tmp_path}/{name.rstrip('/')})"]
    if name == "a/":
        for picture in sorted((tmp_path / "a").iterdir()):
            with Image.open(picture) as image:
                image.load()
    else:
        assert len(decode(tmp_path / name)) == 11


def test_ctrl_c_at_a_pipe_that_nobody_reads_is_heard() -> None:
    class Stuck(Pipe):
        def write(self, data: object) -> int:
            if len(self.data) > 20_000:
                raise KeyboardInterrupt
            return super().write(data)

    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)

    def send() -> None:
        with open_writer(Stuck(), 16) as writer:
            for _ in range(100):
                writer.write(noise)

    with pytest.raises(KeyboardInterrupt):
        send()


def test_a_reader_that_goes_away_is_one_clear_error() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)

    def send() -> None:
        with open_writer(Pipe(most=20_000), 16) as writer:
            for _ in range(100):
                writer.write(noise)

    with pytest.raises(ReaderGoneError, match="whoever read the output has gone"):
        send()


def test_a_stopped_stream_ends_where_it_is() -> None:
    pipe = Pipe()
    with pytest.raises(KeyboardInterrupt):
        write_to(pipe)
    with av.open(io.BytesIO(pipe.data), "r") as container:
        assert len(list(container.decode(video=0))) == 20


def write_to(pipe: Pipe) -> None:
    with open_writer(pipe, 16) as writer:
        writer.write(ramp())
        raise KeyboardInterrupt


def test_a_dash_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"- names no file; give a binary file such as sys\.stdout\.buffer"):
        Video(ramp(), 16).save("-")
    assert list(tmp_path.iterdir()) == []
