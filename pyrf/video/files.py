"""Videos as files: `Video`, and the sink that a path names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyrf.video.encoded import GifWriter, Mp4Writer
from pyrf.video.pictures import FolderWriter, SheetWriter
from pyrf.video.writer import Frames, PathLike, Sink


@dataclass(frozen=True, eq=False)
class Video:
    """A finished clip.

    Attributes:
        frames: uint8 [T, H, W, 3].
        fps: frames per second.
    """

    frames: Frames
    fps: float

    def __repr__(self) -> str:
        count, height, width = self.frames.shape[:3]
        seconds = count / self.fps
        return f"<Video: {count} frames of {height} x {width}, {seconds:.2f} s at {self.fps:g} fps>"

    def save(self, path: PathLike) -> Path:
        """Write the clip as .mp4, .gif, .png (contact sheet) or a folder of PNG frames.

        Raises:
            ValueError: when the path cannot be written or its extension is unknown.
        """
        with open_writer(path, self.fps) as writer:
            writer.write(self.frames)
        return Path(path)


# By the extension of a path, "/" for a folder. A sink that is no file is keyed by its scheme, as "rtmp://".
_SINKS: dict[str, Callable[[str, float], Sink]] = {
    ".mp4": Mp4Writer,
    ".gif": GifWriter,
    ".png": SheetWriter,
    "/": FolderWriter,
}


def open_writer(path: PathLike, fps: float) -> Sink:
    """Start an output whose kind the path tells: .mp4, .gif, .png (contact sheet), else a folder of PNGs.

    A path without an extension, or ending in a slash, names a folder.

    Args:
        fps: frames per second.

    Raises:
        ValueError: when the kind is unknown or the place cannot be written.
    """
    text = os.fspath(path)
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
    return _SINKS[kind](text, fps)


def check_output(path: PathLike) -> None:
    """Refuse an output that `open_writer` would refuse, leaving nothing behind.

    Raises:
        ValueError: as `open_writer` does.
    """
    open_writer(path, fps=1).discard()
