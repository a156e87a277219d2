"""Frames into a file that need not seek, such as a pipe: MP4 that plays while it grows, or plain RGB."""

from __future__ import annotations

import io
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from pyrf.printing import ReaderGoneError
from pyrf.video.encoder import Encoder, refusals
from pyrf.video.encoding import LIVE_MP4, EncoderSettings
from pyrf.video.metadata import Metadata
from pyrf.video.writer import Frames, FrameWriter


class LiveWriter(FrameWriter):
    """MP4 into a binary file that need not seek, such as a pipe; it plays while it grows.

    Each call of `write` begins a fragment. The file is not closed, and what has left is not taken back.

    Args:
        target: where it goes.
        fps: frames per second.
        metadata: what the video says of how it was made.
        encoder: how good or large it is, and who encodes it.
    """

    multiple = 2
    kind = "MP4"
    _encoder: Encoder | None = None

    def __init__(
        self,
        target: io.RawIOBase | BinaryIO,
        fps: float,
        *,
        metadata: Metadata | None = None,
        encoder: EncoderSettings | None = None,
    ) -> None:
        super().__init__(str(getattr(target, "name", "a stream")), fps, metadata)
        self._target = target
        self._settings = encoder or EncoderSettings()
        self._encoding = self._settings.of(LIVE_MP4)

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
            with refusals(self):
                yield
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def _open(self, height: int, width: int) -> None:
        encoding = self._settings.on_this_machine(self._encoding, height, width, self.fps, is_live=False)
        self._encoder = Encoder(
            _Whole(self._target), encoding, height=height, width=width, fps=self.fps, metadata=self.metadata
        )

    def _take(self, frame: Frames, *, begins: bool) -> None:
        self._begins = begins
        super()._take(frame, begins=begins)

    def _append(self, frame: Frames) -> None:
        assert self._encoder is not None  # opened before the first frame
        self._encoder.append(frame, is_key=self._begins)


class RawWriter(FrameWriter):
    """Plain RGB into a binary file: 8 bits per value, row by row, frame by frame, and nothing else.

    Args:
        target: where it goes.
        fps: frames per second, which the file does not tell.
    """

    kind = "raw video"

    def __init__(self, target: io.RawIOBase | BinaryIO, fps: float) -> None:
        super().__init__(str(getattr(target, "name", "a stream")), fps)
        self._target = _Whole(target)

    def _append(self, frame: Frames) -> None:
        try:
            self._target.write(frame.data.cast("B"))
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def close(self) -> None:
        self._closed = True
        if not self.num_frames:
            raise ValueError(f"no frames were written to {self.name}")

    def discard(self) -> None:
        """End the video where it is."""
        self._closed = True


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
