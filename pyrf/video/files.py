"""Frames into files: writers that append as chunks arrive, and `Video`."""

from __future__ import annotations

import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pyrf.config import MAX_FPS, MIN_FPS

Frames = NDArray[np.uint8]
"""uint8 [T, H, W, 3], RGB."""

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Video:
    """A finished clip.

    Attributes:
        frames: uint8 [T, H, W, 3].
        fps: frames a second.
    """

    frames: Frames
    fps: float

    def save(self, path: PathLike) -> Path:
        """Write the clip as .mp4, .gif, .png (contact sheet) or a folder of PNG frames.

        Raises:
            ValueError: when the path cannot be written or its extension is unknown.
        """
        with open_writer(path, self.fps) as writer:
            writer.write(self.frames)
        return writer.path


class FrameWriter(ABC):
    """Appends frames to one output. A context manager: the output appears, whole, when it exits well.

    Frames go to a hidden partial file beside the target, which is made at once: a place that cannot be
    written is refused before any frame is. An error or Ctrl-C removes the partial file. A symlink is
    followed: what it points to is written.
    """

    multiple: ClassVar[int] = 1

    def __init__(self, path: PathLike, fps: float) -> None:
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ValueError(f"fps must lie in {MIN_FPS:g}..{MAX_FPS:g}, got {fps}")
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))
        self.fps = fps
        self.num_frames = 0
        self._size: tuple[int, int] | None = None
        self._partial = self._make_partial()

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 [T, H, W, 3], all of one size.

        Raises:
            ValueError: for another dtype or shape, a size unlike the first one's, or an odd size in MP4.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}; "
                "write the clips of a batch one by one"
            )
        height, width = frames.shape[1:3]
        if self._size is None:
            if not height or not width or height % self.multiple or width % self.multiple:
                raise ValueError(
                    f"{self.path.suffix} needs a height and width that are multiples of {self.multiple}, "
                    f"got {height} x {width}"
                )
            self._size = height, width
            self._open(height, width)
        if (height, width) != self._size:
            raise ValueError(
                f"all frames must have the size of the first, {self._size[0]} x {self._size[1]}, "
                f"got {height} x {width}"
            )
        for frame in frames:
            self._append(np.ascontiguousarray(frame))
            self.num_frames += 1

    def close(self) -> None:
        """Finish the output and move it to its place."""
        try:
            if not self.num_frames:
                raise ValueError(f"no frames were written to {self.path}")
            self._finish()
            if self._partial.is_dir() and self._target.is_dir():
                self._target.rmdir()  # empty, or it would have been refused
            self._partial.replace(self._target)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Drop what was written; the target stays as it was."""
        with suppress(Exception):
            self._abort()
        if self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
        else:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _make_partial(self) -> Path:
        target = self._target
        partial = target.parent / f".{target.name}.{os.getpid()}-{os.urandom(3).hex()}.partial"
        try:
            if os.path.ismount(target):
                raise ValueError(f"cannot write {self.path}: nothing can replace a mount point; name another")
            self._check_target()
            self._touch(partial)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return partial

    def _check_target(self) -> None:
        """Refuse what the output cannot replace."""
        if self._target.is_dir():
            raise ValueError(f"cannot write {self.path}: it is a directory")

    def _touch(self, partial: Path) -> None:
        """Begin the partial output, empty."""
        partial.touch(exist_ok=False)

    def _open(self, height: int, width: int) -> None:  # noqa: B027  (not all outputs need it)
        """Prepare for frames of this size; called once, before the first frame."""

    @abstractmethod
    def _append(self, frame: Frames) -> None:
        """Take one contiguous frame [H, W, 3]."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the partial output."""

    def _abort(self) -> None:  # noqa: B027
        """Release what holds the partial output open."""


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write {path}: {error.strerror or error}; choose a place that can be written")


class _AvWriter(FrameWriter):
    """Encodes through PyAV; memory does not grow with the number of frames."""

    container_format: ClassVar[str]
    codec: ClassVar[str]
    pixel_format: ClassVar[str]
    codec_options: ClassVar[dict[str, str]] = {}
    container_options: ClassVar[dict[str, str]] = {}

    _container: Any = None
    _stream: Any = None

    def write(self, frames: Frames) -> None:
        with self._refusals():
            super().write(frames)

    def close(self) -> None:
        with self._refusals():
            super().close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What the encoder or the disk refuses, as a ValueError."""
        import av

        try:
            yield
        except av.error.FFmpegError as error:
            size = "" if self._size is None else f" in frames of {self._size[0]} x {self._size[1]}"
            raise ValueError(
                f"cannot write {self.path}{size}: {error.strerror}; choose another size, kind or place"
            ) from error

    def _open(self, height: int, width: int) -> None:
        import av

        rate = Fraction(self.fps).limit_denominator(1001)
        self._container = av.open(
            str(self._partial), "w", format=self.container_format, container_options=self.container_options
        )
        self._stream = self._container.add_stream(self.codec, rate=rate, options=dict(self.codec_options))
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = self.pixel_format
        self._time_base = 1 / rate

    def _append(self, frame: Frames) -> None:
        import av

        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = self.num_frames
        picture.time_base = self._time_base
        for converted in self._convert(picture):
            self._container.mux(self._stream.encode(converted))

    def _convert(self, picture: Any) -> Iterator[Any]:
        yield picture

    def _finish(self) -> None:
        self._container.mux(self._stream.encode())
        self._abort()

    def _abort(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()


class Mp4Writer(_AvWriter):
    """H.264 in yuv420p, which every player and browser shows; sizes must be even."""

    multiple = 2
    container_format = "mp4"
    codec = "libx264"
    pixel_format = "yuv420p"
    codec_options: ClassVar[dict[str, str]] = {"crf": "18", "preset": "veryfast"}
    container_options: ClassVar[dict[str, str]] = {"movflags": "+faststart"}


class GifWriter(_AvWriter):
    """Endlessly looping GIF with a palette for each frame, so that no frame has to wait for the last."""

    container_format = "gif"
    codec = "gif"
    pixel_format = "pal8"

    def _open(self, height: int, width: int) -> None:
        import av

        super()._open(height, width)
        graph: Any = av.filter.Graph()
        source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=self._time_base)
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        apply = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(apply, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(apply, 0, 1)
        apply.link_to(sink)
        graph.configure()
        self._graph = graph

    def _convert(self, picture: Any) -> Iterator[Any]:
        self._graph.vpush(picture)
        yield self._graph.vpull()


class SheetWriter(FrameWriter):
    """Contact sheet: frames at even distances, row by row, in one PNG.

    Keeps every stride-th frame and doubles the stride when the sheet is full, so it needs not know how
    many frames will come.
    """

    max_tiles = 24
    columns = 6
    gap = 2

    _tiles: list[Frames]

    def _open(self, height: int, width: int) -> None:
        self._tiles = []
        self._stride = 1

    def _append(self, frame: Frames) -> None:
        if self.num_frames % self._stride:
            return
        if len(self._tiles) == self.max_tiles:
            self._tiles = self._tiles[::2]
            self._stride *= 2
            if self.num_frames % self._stride:
                return
        self._tiles.append(frame.copy())

    def _finish(self) -> None:
        from PIL import Image

        height, width, _ = self._tiles[0].shape
        columns = min(self.columns, len(self._tiles))
        rows = math.ceil(len(self._tiles) / columns)
        size = (columns * (width + self.gap) - self.gap, rows * (height + self.gap) - self.gap)
        sheet = Image.new("RGB", size, "white")
        for i, tile in enumerate(self._tiles):
            row, column = divmod(i, columns)
            sheet.paste(Image.fromarray(tile), (column * (width + self.gap), row * (height + self.gap)))
        sheet.save(self._partial, format="png")


class FolderWriter(FrameWriter):
    """A folder of `frame_000000.png`, `frame_000001.png`, ...; the folder must be new or empty."""

    def _check_target(self) -> None:
        if self._target.is_dir() and any(self._target.iterdir()):
            raise ValueError(f"cannot write to {self.path}: the folder is not empty; name a new one")
        if self._target.is_symlink():  # still one after all were followed
            raise ValueError(f"cannot write to {self.path}: its symlinks form a loop; name a new folder")
        if self._target.exists() and not self._target.is_dir():
            raise ValueError(f"cannot write to {self.path}: it is a file; name a new folder")

    def _touch(self, partial: Path) -> None:
        partial.mkdir()

    def _append(self, frame: Frames) -> None:
        from PIL import Image

        Image.fromarray(frame).save(self._partial / f"frame_{self.num_frames:06d}.png")

    def _finish(self) -> None:
        pass


_WRITERS: dict[str, type[FrameWriter]] = {".mp4": Mp4Writer, ".gif": GifWriter, ".png": SheetWriter}


def open_writer(path: PathLike, fps: float) -> FrameWriter:
    """Start an output whose kind the path tells: .mp4, .gif, .png (contact sheet), else a folder of PNGs.

    A path without an extension, or ending in a slash, names a folder.

    Raises:
        ValueError: when the extension is unknown or the place cannot be written.
    """
    text = os.fspath(path)
    suffix = Path(text).suffix.lower()
    if text.endswith(("/", os.sep)) or not suffix:
        return FolderWriter(text, fps)
    if suffix not in _WRITERS:
        raise ValueError(
            f"cannot write {text}: unknown extension {suffix!r}; use {', '.join(_WRITERS)} (contact sheet) "
            "or a folder name ending in /"
        )
    return _WRITERS[suffix](text, fps)


def check_output(path: PathLike) -> None:
    """Refuse an output that `open_writer` would refuse, leaving nothing behind.

    Raises:
        ValueError: as `open_writer` does.
    """
    open_writer(path, fps=1).discard()
