"""Frames through PyAV: H.264 in MP4, which is also what the server sends, and GIF."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, ClassVar

from pyrf.video.filters import BT709, LIMITED, palette, to_bt709
from pyrf.video.writer import FileWriter, Frames


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


class Encoder:
    """Encodes frames one by one; memory does not grow with their number.

    Colours are BT.709 in the limited range, and the file says so; a GIF keeps RGB.

    Args:
        target: a path, or a binary file to write to, which need not seek for `LIVE_MP4`.
        encoding: container and codec.
        height, width: of a frame.
        fps: frames per second.

    Raises:
        av.error.FFmpegError: from here on, what the encoder or the disk refuses.
    """

    def __init__(
        self, target: str | io.RawIOBase, encoding: Encoding, *, height: int, width: int, fps: float
    ) -> None:
        import av

        rate = Fraction(fps).limit_denominator(1001)
        self._time_base = 1 / rate
        self._num_frames = 0
        self._container: Any = av.open(
            target,
            "w",
            format=encoding.container,
            container_options=dict(encoding.container_options),
        )
        try:
            stream: Any = self._container.add_stream(
                encoding.codec, rate=rate, options=dict(encoding.codec_options)
            )
            stream.height, stream.width = height, width
            stream.pix_fmt = encoding.pixel_format
            self._stream = stream
            if encoding.pixel_format == "pal8":
                self._filter = palette(height, width, self._time_base)
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
        self._container.mux(self._stream.encode(picture))
        self._num_frames += 1

    def finish(self) -> None:
        """Write what the codec still holds, and end the file."""
        self._container.mux(self._stream.encode())
        self.close()

    def close(self) -> None:
        """Let go of the target, finished or not."""
        container, self._container = self._container, None
        if container is not None:
            container.close()


class EncodedWriter(FileWriter):
    """A file that an `Encoder` writes."""

    encoding: ClassVar[Encoding]
    _encoder: Encoder | None = None

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
        self._encoder = Encoder(str(self._partial), self.encoding, height=height, width=width, fps=self.fps)

    def _append(self, frame: Frames) -> None:
        assert self._encoder is not None  # opened before the first frame
        self._encoder.append(frame)

    def _finish(self) -> None:
        assert self._encoder is not None
        self._encoder.finish()

    def _abort(self) -> None:
        if self._encoder is not None:
            self._encoder.close()


class Mp4Writer(EncodedWriter):
    """H.264 in MP4; sizes must be even."""

    multiple = 2
    encoding = MP4


class GifWriter(EncodedWriter):
    """A GIF that loops without end."""

    encoding = GIF
