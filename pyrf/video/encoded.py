"""Files that an encoder writes: MP4, MOV, Matroska, WebM, GIF, APNG and animated WebP."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from pyrf.partial import KeptError
from pyrf.video.annotated import add_to_apng, add_to_webp
from pyrf.video.encoder import Encoder, refusals
from pyrf.video.encoding import APNG, GIF, MKV, MOV, MP4, WEBM, WEBP, EncoderSettings, Encoding
from pyrf.video.held_file import HeldFile
from pyrf.video.metadata import CommentedGif
from pyrf.video.provenance import Signer
from pyrf.video.writer import FileWriter, Frames, PathLike


class EncodedWriter(FileWriter):
    """A file that an `Encoder` writes.

    Args:
        path, fps: as of `FileWriter`.
        encoder: how good or large it is, and who encodes it.
        options: `FileWriter`'s.

    Attributes:
        signer: signs the finished file.

    Raises:
        ValueError: when the kind of file has nothing to set.
    """

    encoding: ClassVar[Encoding]
    signer: Signer | None = None
    _encoder: Encoder | None = None

    def __init__(
        self, path: PathLike, fps: float, *, encoder: EncoderSettings | None = None, **options: Any
    ) -> None:
        self._settings = encoder or EncoderSettings()
        self._encoding = self._settings.of(self.encoding)
        super().__init__(path, fps, **options)

    def write(self, frames: Frames) -> None:
        with refusals(self):
            super().write(frames)

    def close(self) -> None:
        with refusals(self):
            super().close()

    def keep(self) -> Path | None:
        with refusals(self):
            return super().keep()

    def _open(self, height: int, width: int) -> None:
        self._file = HeldFile(self._partial.descriptor)
        self._encoder = self._make_encoder(height, width)
        # What the encoder holds back, and the index: for each frame less than 64 bytes.
        self._held_back = 4 * height * width

    def _make_encoder(self, height: int, width: int) -> Encoder:
        encoding = self._settings.on_this_machine(self._encoding, height, width, self.fps, is_live=False)
        return Encoder(self._file, encoding, height=height, width=width, fps=self.fps, metadata=self.metadata)

    def _append(self, frame: Frames) -> None:
        assert self._encoder is not None  # opened before the first frame
        self._file.reserve(self._held_back + 64 * self.num_frames)
        self._encoder.append(frame)

    def _finish(self) -> None:
        assert self._encoder is not None
        self._encoder.finish()
        if self.metadata:
            self._annotate()
        if self.signer is not None:
            self._sign(self.signer)
        self._file.trim()

    def _annotate(self) -> None:
        """Say how the file was made, where the encoder could not."""

    def _sign(self, signer: Signer) -> None:
        """Put a signature into the finished file; where that fails, it is kept unsigned by another name."""
        try:
            with tempfile.TemporaryFile(dir=self._partial.path.parent) as signed:
                signer.sign(self._file.twin(), signed, self.path.name, self.metadata)
                self._file.reserve(signed.seek(0, os.SEEK_END) - self._file.size)  # or it would be half one
                signed.seek(0)
                self._file.seek(0)
                shutil.copyfileobj(signed, self._file)
        except (OSError, ValueError) as error:
            self._file.trim()
            raise KeptError(self._target, self._partial.keep(), str(error)) from error

    def _abort(self) -> None:
        if self._encoder is not None:
            self._encoder.close()


class Mp4Writer(EncodedWriter):
    """H.264 in MP4; sizes must be even."""

    multiple = 2
    encoding = MP4


class MovWriter(Mp4Writer):
    """H.264 in MOV, which editors of video read; sizes must be even."""

    encoding = MOV


class MkvWriter(Mp4Writer):
    """H.264 in Matroska; sizes must be even."""

    encoding = MKV


class WebmWriter(EncodedWriter):
    """VP9 in WebM; sizes must be even."""

    multiple = 2
    encoding = WEBM


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


class ApngWriter(EncodedWriter):
    """An animated PNG that loops without end. It holds every frame exactly."""

    encoding = APNG

    def _annotate(self) -> None:
        add_to_apng(self._file, self.metadata)


class WebpWriter(EncodedWriter):
    """An animated WebP that loops without end: smaller than a GIF, with all colours."""

    encoding = WEBP

    def _annotate(self) -> None:
        assert self.size is not None
        add_to_webp(self._file, self.metadata, *self.size)
