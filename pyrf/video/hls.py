"""An HLS playlist with its segments beside it, which plays while it grows."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pyrf.files import expanded
from pyrf.video.encoder import Encoder, refusals
from pyrf.video.encoding import MP4, EncoderSettings
from pyrf.video.metadata import Metadata
from pyrf.video.writer import Frames, FrameWriter, PathLike

SEGMENT_S = 2.0
"""Seconds of a segment; players begin when they have some."""


class HlsWriter(FrameWriter):
    """A `Sink` that writes `NAME.m3u8` and its segments, `NAME-00000.m4s` and so on, into one folder.

    Players may begin while it is written. Every segment stays, so that they can also go back to the
    beginning. The folder is made where it is missing.

    Args:
        path: of the playlist.
        fps: frames per second.
        keep_partial: whether an error in the block ends the playlist and keeps it; else all of it goes.
        encoder: how good or large it is, and who encodes it.

    Raises:
        ValueError: when there is such a playlist already, or the folder cannot be written.
    """

    multiple = 2
    kind = "HLS"
    _encoder: Encoder | None = None

    def __init__(
        self,
        path: PathLike,
        fps: float,
        *,
        metadata: Metadata | None = None,
        keep_partial: bool = False,
        encoder: EncoderSettings | None = None,
    ) -> None:
        super().__init__(os.fspath(path), fps, metadata)
        self.path = Path(expanded(path))
        self.keep_partial = keep_partial
        self._settings = encoder or EncoderSettings()
        self._encoding = self._settings.of(MP4)
        self._made_folder = False
        self._check_place()

    def _check_place(self) -> None:
        if "%" in str(self.path) or ":" in str(self.path.parent):
            raise ValueError(f"cannot write {self.name}: FFmpeg reads % and : in it; choose another name")
        folder = self.path.parent if self.path.parent.exists() else self.path.parent.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(f"cannot write {self.name}: {folder} is no folder that can be written")
        if self.path.exists() or self._files():
            raise ValueError(f"cannot write {self.name}: there is such a playlist; name a new one")

    def _files(self) -> list[Path]:
        """What belongs to the playlist."""
        own = re.compile(re.escape(self.path.stem) + r"(-\d{5,}\.m4s|-init\.mp4|\.m3u8)(\.tmp)?")
        folder = self.path.parent
        return [one for one in folder.iterdir() if own.fullmatch(one.name)] if folder.is_dir() else []

    def write(self, frames: Frames) -> None:
        with refusals(self):
            super().write(frames)

    def _open(self, height: int, width: int) -> None:
        if not self.path.parent.exists():
            self.path.parent.mkdir()
            self._made_folder = True
        stem, folder = self.path.stem, self.path.parent
        # A segment begins with a key frame, and only there is one.
        every = str(max(1, round(SEGMENT_S * self.fps)))
        codec = {**self._encoding.codec_options, "g": every, "keyint_min": every, "sc_threshold": "0"}
        encoding = replace(
            self._encoding,
            container="hls",
            codec_options=codec,
            container_options={
                "hls_time": f"{SEGMENT_S:g}",
                "hls_list_size": "0",
                "hls_playlist_type": "event",
                "hls_segment_type": "fmp4",
                "hls_fmp4_init_filename": f"{stem}-init.mp4",
                "hls_segment_filename": str(folder / f"{stem}-%05d.m4s"),
                "hls_flags": "temp_file+independent_segments",
            },
        )
        encoding = self._settings.on_this_machine(encoding, height, width, self.fps, is_live=True)
        self._encoder = Encoder(str(self.path), encoding, height=height, width=width, fps=self.fps)

    def _append(self, frame: Frames) -> None:
        assert self._encoder is not None  # opened before the first frame
        self._encoder.append(frame)

    def close(self) -> None:
        self._closed = True
        if self._encoder is None:
            raise ValueError(f"no frames were written to {self.name}")
        with refusals(self):
            self._encoder.finish()

    def discard(self) -> None:
        """Remove the playlist and its segments."""
        self._closed = True
        with suppress(Exception):
            if self._encoder is not None:
                self._encoder.close()
        if self._encoder is not None:
            for path in self._files():
                path.unlink(missing_ok=True)
        if self._made_folder:
            with suppress(OSError):
                self.path.parent.rmdir()

    def _fail(self, error: BaseException) -> None:
        if not self.keep_partial or self._encoder is None:
            self.discard()
            return
        with suppress(ValueError):
            self.close()
            error.add_note(f"({self.num_frames} frames kept as {self.path})")
