"""Videos as files: `Video`, and the sink that a path names."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from pyrf.files import expanded
from pyrf.video.encoded import GifWriter, LiveWriter, Mp4Writer, WebpWriter
from pyrf.video.metadata import Metadata
from pyrf.video.pictures import FolderWriter, SheetWriter
from pyrf.video.writer import FileWriter, Frames, PathLike, Sink


@dataclass(frozen=True, eq=False)
class Video:
    """A finished clip.

    Attributes:
        frames: uint8 [T, H, W, 3].
        fps: frames per second.
        metadata: how it was made, which its files say too; JSON values by name.
    """

    frames: Frames
    fps: float
    metadata: Metadata = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        count, height, width = self.frames.shape[:3]
        seconds = count / self.fps
        return f"<Video: {count} frames of {height} x {width}, {seconds:.2f} s at {self.fps:g} fps>"

    def save(self, path: PathLike) -> Path:
        """Write the clip as .mp4, .gif, .webp, .png (contact sheet) or a folder of PNG frames.

        Raises:
            ValueError: when the path cannot be written or its extension is unknown.
        """
        with open_writer(path, self.fps, metadata=self.metadata) as writer:
            writer.write(self.frames)
        return Path(expanded(path))


class _OpenFile(Protocol):
    """Makes a writer of files."""

    def __call__(
        self, path: PathLike, fps: float, *, metadata: Metadata | None, keep_partial: bool
    ) -> FileWriter: ...


# By the extension of a path, "/" for a folder. A sink that is no file is keyed by its scheme, as "rtmp://".
_SINKS: dict[str, _OpenFile] = {
    ".mp4": Mp4Writer,
    ".gif": GifWriter,
    ".webp": WebpWriter,
    ".png": SheetWriter,
    "/": FolderWriter,
}


def open_writer(
    path: PathLike | BinaryIO | io.RawIOBase,
    fps: float,
    *,
    metadata: Metadata | None = None,
    keep_partial: bool = False,
) -> Sink:
    """Start an output whose kind the path tells: .mp4, .gif, .webp, .png (contact sheet), a folder of PNGs.

    A path without an extension, or ending in a slash, names a folder. A binary file, such as
    `sys.stdout.buffer`, gets MP4 that plays while it grows.

    Args:
        fps: frames per second.
        metadata: how the video was made, as `StreamingPipeline.metadata` tells; the files say it too.
        keep_partial: whether an error in the block keeps the frames before it: as a whole file in the
            output's place if nothing was there, else beside it with a number. A note of the error says where.

    Raises:
        ValueError: when the kind is unknown or the place cannot be written.
    """
    if not isinstance(path, str | os.PathLike):
        return LiveWriter(path, fps, metadata=metadata)
    text = os.fspath(path)
    if text == "-":
        raise ValueError(
            "- names no file; give a binary file such as sys.stdout.buffer, or a path such as ./-"
        )
    address = re.match(r"[a-z][a-z0-9+.-]*://", text)
    if address:
        kind = address.group()
    elif text.endswith(("/", os.sep)):
        kind = "/"
    else:
        kind = Path(text).suffix.lower() or "/"
    if kind not in _SINKS:
        known = ", ".join(name for name in _SINKS if name.startswith("."))
        raise ValueError(
            f"cannot write {text}: unknown {'address' if address else 'extension'} {kind!r}; "
            f"use {known} (contact sheet) or a folder name ending in /"
        )
    return _SINKS[kind](text, fps, metadata=metadata, keep_partial=keep_partial)


def check_output(path: PathLike) -> None:
    """Refuse an output that `open_writer` would refuse, leaving nothing behind.

    Raises:
        ValueError: as `open_writer` does.
    """
    open_writer(path, fps=1).discard()
