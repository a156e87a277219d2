"""Frames through PyAV: H.264 in MP4, which is also what the server sends, GIF and animated WebP."""

from __future__ import annotations

import io
import math
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pyrf.printing import ReaderGoneError
from pyrf.video.filters import BT709, LIMITED, palette, to_bgra, to_bt709
from pyrf.video.guarded import GuardedFile
from pyrf.video.held_file import HeldFile
from pyrf.video.metadata import CommentedGif, Metadata, for_container
from pyrf.video.writer import FileWriter, Frames, FrameWriter, PathLike


@dataclass(frozen=True)
class Encoding:
    """A container, and the codec of its one stream, in FFmpeg's words."""

    container: str
    codec: str
    pixel_format: str
    codec_options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)


# Every player and browser shows yuv420p; its sizes are even.
MP4 = Encoding("mp4", "libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}, {"movflags": "+faststart"})
# Plays while it still grows: a fragment per key frame, and no frame waits for a later one.
LIVE_MP4 = replace(
    MP4,
    codec_options={**MP4.codec_options, "tune": "zerolatency"},
    container_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
)
GIF = Encoding("gif", "gif", "pal8")
# The encoder makes its own yuv420p, in the colours that every reader of WebP expects.
WEBP = Encoding("webp", "libwebp_anim", "bgra", {"quality": "60"}, {"loop": "0"})


class Encoder:
    """Encodes frames one by one. Memory does not grow with their number, but for WebP's encoded pictures.

    Colours are BT.709 in the limited range, and the file says so; a GIF keeps RGB, a WebP has its own.

    Args:
        target: a binary file to write to, which need not seek for `LIVE_MP4` and `GIF`.
        encoding: container and codec.
        height, width: of a frame.
        fps: frames per second.
        metadata: what the file says of how it was made.

    Raises:
        av.error.FFmpegError, OSError: from here on, what the encoder or the disk refuses.
    """

    def __init__(
        self,
        target: io.RawIOBase | BinaryIO,
        encoding: Encoding,
        *,
        height: int,
        width: int,
        fps: float,
        metadata: Metadata | None = None,
    ) -> None:
        import av

        rate = Fraction(fps).limit_denominator(1001)
        self._time_base = 1 / rate
        self._num_frames = 0
        self._file = GuardedFile(target)
        self._container: Any = av.open(
            self._file,
            "w",
            format=encoding.container,
            container_options=dict(encoding.container_options),
            # For `faststart`, which reads what was written to move it behind the index.
            io_open=lambda *_: target.twin() if isinstance(target, HeldFile) else None,
        )
        try:
            self._container.metadata.update(for_container(metadata or {}))
            stream: Any = self._container.add_stream(
                encoding.codec, rate=rate, options=dict(encoding.codec_options)
            )
            stream.height, stream.width = height, width
            stream.pix_fmt = encoding.pixel_format
            self._stream = stream
            if encoding.pixel_format == "pal8":
                self._filter = palette(height, width, self._time_base)
            elif encoding.pixel_format == "bgra":
                self._filter = to_bgra(height, width, self._time_base)
            else:
                context = stream.codec_context
                context.colorspace = context.color_primaries = context.color_trc = BT709
                context.color_range = LIMITED
                self._filter = to_bt709(height, width, encoding.pixel_format, self._time_base)
        except BaseException:
            self.close()
            raise

    def append(self, frame: Frames, *, is_key: bool = False) -> None:
        """Encode a frame [H, W, 3]; a key frame can be decoded without those before it."""
        import av
        from av.video.frame import PictureType

        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts, picture.time_base = self._num_frames, self._time_base
        self._filter.vpush(picture)
        picture = self._filter.vpull()
        if is_key:
            picture.pict_type = PictureType.I
        with self._file.passing_on():
            self._container.mux(self._stream.encode(picture))
            self._num_frames += 1

    def finish(self) -> None:
        """Write what the codec still holds, and end the file."""
        with self._file.passing_on():
            self._container.mux(self._stream.encode())
            self.close()

    def close(self) -> None:
        """Let go of the target, finished or not."""
        container, self._container = self._container, None
        if container is not None:
            container.close()


@contextmanager
def _refusals(writer: FrameWriter) -> Iterator[None]:
    """What the encoder or the disk refuses, as a ValueError."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        size = "" if writer.size is None else f" in frames of {writer.size[0]} x {writer.size[1]}"
        raise ValueError(
            f"cannot write {writer.name}{size}: {error.strerror}; choose another size, kind or place"
        ) from error


class EncodedWriter(FileWriter):
    """A file that an `Encoder` writes."""

    encoding: ClassVar[Encoding]
    _encoder: Encoder | None = None

    def write(self, frames: Frames) -> None:
        with _refusals(self):
            super().write(frames)

    def close(self) -> None:
        with _refusals(self):
            super().close()

    def keep(self) -> Path | None:
        with _refusals(self):
            return super().keep()

    def _open(self, height: int, width: int) -> None:
        self._file = HeldFile(self._partial.descriptor)
        self._encoder = self._make_encoder(height, width)
        # What the encoder holds back, and the index: for each frame less than 64 bytes.
        self._held_back = 4 * height * width

    def _make_encoder(self, height: int, width: int) -> Encoder:
        return Encoder(
            self._file, self.encoding, height=height, width=width, fps=self.fps, metadata=self.metadata
        )

    def _append(self, frame: Frames) -> None:
        assert self._encoder is not None  # opened before the first frame
        self._file.reserve(self._held_back + 64 * self.num_frames)
        self._encoder.append(frame)

    def _finish(self) -> None:
        assert self._encoder is not None
        self._encoder.finish()
        self._file.trim()

    def _abort(self) -> None:
        if self._encoder is not None:
            self._encoder.close()


class Mp4Writer(EncodedWriter):
    """H.264 in MP4; sizes must be even."""

    multiple = 2
    encoding = MP4


class GifWriter(EncodedWriter):
    """A GIF that loops without end. It shows at most 50 frames per second, and leaves out those between."""

    encoding = GIF
    # Delays are hundredths of a second: players take less than 2 for 10, and 65,535 is the most.
    max_fps, min_fps = 50, 1 / 655

    def __init__(self, path: PathLike, fps: float, **options: Any) -> None:
        if fps < self.min_fps:
            raise ValueError(f"a GIF shows a frame for at most 655 seconds; fps must be above, got {fps}")
        super().__init__(path, fps, **options)

    def _make_encoder(self, height: int, width: int) -> Encoder:
        fps = min(self.fps, self.max_fps)
        return Encoder(CommentedGif(self._file, self.metadata), GIF, height=height, width=width, fps=fps)

    def _append(self, frame: Frames) -> None:
        shown = self.max_fps / max(self.fps, self.max_fps)  # of each frame, that many
        if self.num_frames == 0 or math.floor(self.num_frames * shown) > math.floor(
            (self.num_frames - 1) * shown
        ):
            super()._append(frame)


class WebpWriter(EncodedWriter):
    """An animated WebP that loops without end: smaller than a GIF, with all colours. It has no metadata."""

    encoding = WEBP


class LiveWriter(FrameWriter):
    """MP4 into a binary file that need not seek, such as a pipe; it plays while it grows.

    Each call of `write` begins a fragment. The file is not closed, and what has left is not taken back.

    Args:
        target: where it goes.
        fps: frames per second.
        metadata: what the video says of how it was made.
    """

    multiple = 2
    kind = "MP4"
    _encoder: Encoder | None = None

    def __init__(
        self, target: io.RawIOBase | BinaryIO, fps: float, *, metadata: Metadata | None = None
    ) -> None:
        super().__init__(str(getattr(target, "name", "a stream")), fps, metadata)
        self._target = target

    def write(self, frames: Frames) -> None:
        """Append frames, see `FrameWriter.write`.

        Raises:
            ReaderGoneError: when nobody reads the other end any more.
        """
        with self._errors():
            super().write(frames)

    def close(self) -> None:
        self._closed = True
        if self._encoder is None:
            raise ValueError(f"no frames were written to {self.name}")
        with self._errors():
            self._encoder.finish()

    def discard(self) -> None:
        """End the video where it is."""
        self._closed = True
        with suppress(Exception):
            if self._encoder is not None:
                self._encoder.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with _refusals(self):
                yield
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def _open(self, height: int, width: int) -> None:
        self._encoder = Encoder(
            _Whole(self._target), LIVE_MP4, height=height, width=width, fps=self.fps, metadata=self.metadata
        )

    def _take(self, frame: Frames, *, begins: bool) -> None:
        self._begins = begins
        super()._take(frame, begins=begins)

    def _append(self, frame: Frames) -> None:
        assert self._encoder is not None  # opened before the first frame
        self._encoder.append(frame, is_key=self._begins)


class _Whole(io.RawIOBase):
    """Writes all that it is given, as muxers expect, and cannot seek."""

    def __init__(self, target: io.RawIOBase | BinaryIO) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while rest:
            taken = self._target.write(rest)
            if taken is None:  # a pipe that does not block, and is full
                select.select([], [self._target], [])
            else:
                rest = rest[taken:]
        return len(data)
