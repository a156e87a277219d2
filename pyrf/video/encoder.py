"""Frames through PyAV, one by one: what files, pipes, addresses and the server encode with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from typing import Any, BinaryIO

from pyrf.video.encoding import Encoding
from pyrf.video.filters import BT709, LIMITED, palette, to_bgra, to_bt709
from pyrf.video.guarded import GuardedFile
from pyrf.video.held_file import HeldFile
from pyrf.video.metadata import Metadata, for_container
from pyrf.video.writer import Frames, FrameWriter

SMALL = 192 * 320
"""Pixels of a frame below which x264 goes without its mbtree. That reads memory which nobody has written: one
file of 64 x 96 in fifteen came out otherwise, and none of 200 at this size."""
_GLOBAL_HEADER = 1 << 22
"""In FFmpeg's words: the codec's parameters stand before the frames, where FLV and fragments want them."""


class Encoder:
    """Encodes frames one by one. Memory does not grow with their number, but for WebP's encoded pictures.

    Colours are BT.709 in the limited range, and the file says so; GIF and APNG keep RGB, a WebP has its own.

    Args:
        target: a binary file to write to, which need not seek for `LIVE_MP4` and `GIF`; or an address or
            path that FFmpeg opens itself.
        encoding: container and codec.
        height, width: of a frame.
        fps: frames per second.
        metadata: what the file says of how it was made.

    Raises:
        av.error.FFmpegError, OSError: from here on, what the encoder or the disk refuses.
    """

    def __init__(
        self,
        target: io.RawIOBase | BinaryIO | str,
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
        self._file = None if isinstance(target, str) else GuardedFile(target)
        own: dict[str, Any] = {}
        if self._file is not None:
            # For `faststart`, which reads what was written to move it behind the index.
            own["io_open"] = lambda *_: target.twin() if isinstance(target, HeldFile) else None
        self._container: Any = av.open(
            target if isinstance(target, str) else self._file,
            "w",
            format=encoding.container,
            container_options=dict(encoding.container_options),
            **own,
        )
        try:
            self._container.metadata.update(for_container(metadata or {}))
            options = dict(encoding.codec_options)
            if encoding.codec == "libx264" and height * width < SMALL:
                options["mbtree"] = "0"
            stream: Any = self._container.add_stream(encoding.codec, rate=rate, options=options)
            stream.height, stream.width = height, width
            stream.pix_fmt = encoding.pixel_format
            self._stream = stream
            if encoding.container == "fifo":  # it hides what the container behind it wants
                stream.codec_context.flags |= _GLOBAL_HEADER
            if encoding.pixel_format == "pal8":
                self._filter = palette(height, width, self._time_base)
            elif encoding.pixel_format == "bgra":
                self._filter = to_bgra(height, width, self._time_base)
            elif encoding.pixel_format == "rgb24":
                self._filter = None
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
        if self._filter is not None:
            self._filter.vpush(picture)
            picture = self._filter.vpull()
        if is_key:
            picture.pict_type = PictureType.I
        with self._passing_on():
            self._container.mux(self._stream.encode(picture))
            self._num_frames += 1

    def finish(self) -> None:
        """Write what the codec still holds, and end the file."""
        with self._passing_on():
            self._container.mux(self._stream.encode())
            self.close()

    def close(self) -> None:
        """Let go of the target, finished or not."""
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _passing_on(self) -> Any:
        return nullcontext() if self._file is None else self._file.passing_on()


@contextmanager
def refusals(writer: FrameWriter) -> Iterator[None]:
    """What the encoder or the disk refuses, as a ValueError."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        size = "" if writer.size is None else f" in frames of {writer.size[0]} x {writer.size[1]}"
        raise ValueError(
            f"cannot write {writer.name}{size}: {error.strerror}; choose another size, kind or place"
        ) from error
