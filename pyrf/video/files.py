"""Videos as files: `Video`, and the sink that a path or an address names."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pyrf.files import expanded
from pyrf.video.camera import CameraWriter
from pyrf.video.encoded import (
    ApngWriter,
    EncodedWriter,
    GifWriter,
    MkvWriter,
    MovWriter,
    Mp4Writer,
    WebmWriter,
    WebpWriter,
)
from pyrf.video.encoding import EncoderSettings
from pyrf.video.hls import HlsWriter
from pyrf.video.metadata import Metadata
from pyrf.video.network import CONTAINERS, NetworkWriter, check_receiver, shown
from pyrf.video.pictures import FolderWriter, SheetWriter
from pyrf.video.pipes import LiveWriter, RawWriter
from pyrf.video.provenance import Signer
from pyrf.video.watermark import Watermark
from pyrf.video.window import WindowWriter
from pyrf.video.writer import FileWriter, Frames, FrameWriter, PathLike, Sink


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

    def save(
        self,
        path: PathLike,
        *,
        encoder: EncoderSettings | None = None,
        watermark: Watermark | None = None,
        signer: Signer | None = None,
    ) -> Path:
        """Write the clip as a file, of the kinds of `open_writer`, or as a folder of PNG frames.

        Args:
            encoder: how good or large it is.
            watermark: what all frames of the file show.
            signer: signs the file, an MP4.

        Raises:
            ValueError: when the path cannot be written or its extension is unknown.
        """
        with open_writer(
            path, self.fps, metadata=self.metadata, encoder=encoder, watermark=watermark, signer=signer
        ) as writer:
            writer.write(self.frames)
        return Path(expanded(path))


_ENCODED: dict[str, type[EncodedWriter]] = {
    ".mp4": Mp4Writer,
    ".mov": MovWriter,
    ".mkv": MkvWriter,
    ".webm": WebmWriter,
    ".gif": GifWriter,
    ".webp": WebpWriter,
    ".apng": ApngWriter,
}
_PICTURES: dict[str, type[FileWriter]] = {
    ".png": SheetWriter,
    ".jpg": SheetWriter,
    ".jpeg": SheetWriter,
    "/": FolderWriter,
}
"""By the extension of a path, "/" for a folder."""
_PLAYLIST, _CAMERA, _WINDOW = ".m3u8", "camera:", "window:"


def open_writer(
    path: PathLike | BinaryIO | io.RawIOBase,
    fps: float,
    *,
    metadata: Metadata | None = None,
    keep_partial: bool = False,
    encoder: EncoderSettings | None = None,
    watermark: Watermark | None = None,
    signer: Signer | None = None,
    raw: bool = False,
) -> Sink:
    """Start an output whose kind its name tells.

    - a file: .mp4, .mov, .mkv, .webm, .gif, .webp, .apng, or .png and .jpg (contact sheets);
    - a folder of PNGs, where there is no extension, or a slash at the end; `NAME.m3u8` for HLS;
    - an address: rtmp://, rtmps://, srt:// or udp://;
    - `camera:` or `camera:DEVICE`, and `window:`;
    - a binary file, such as `sys.stdout.buffer`, gets MP4 that plays while it grows, or plain RGB.

    Args:
        fps: frames per second.
        metadata: how the video was made, as `StreamingPipeline.metadata` tells; the files say it too.
        keep_partial: whether an error in the block keeps the frames before it: as a whole file in the
            output's place if nothing was there, else beside it with a number. A note of the error says where.
        encoder: how good or large H.264 or VP9 is, and who encodes it.
        watermark: what all frames show; metadata that is given tells its name.
        signer: signs the finished file, an MP4.
        raw: of a binary file, whether it gets uint8 RGB [H, W, 3], frame by frame, without a header.

    Raises:
        ValueError: when the kind is unknown or has nothing to set, or its place cannot be written.
    """
    if metadata and watermark is not None:
        metadata = watermark.told_in(metadata)
    if signer is not None:
        check_signed(path)
    writer = _writer(path, fps, metadata, keep_partial, encoder, raw)
    if watermark is not None:
        writer.transform = watermark.on
    if isinstance(writer, Mp4Writer):
        writer.signer = signer
    return writer


def check_signed(path: PathLike | BinaryIO | io.RawIOBase) -> None:
    """Refuse an output that cannot be signed.

    Raises:
        ValueError: when it is no MP4 file.
    """
    if not isinstance(path, str | os.PathLike) or _kind(os.fspath(path)) != ".mp4":
        shown = path if isinstance(path, str | os.PathLike) else "a pipe"
        raise ValueError(f"only finished .mp4 files are signed, not {shown}")


def _writer(
    path: PathLike | BinaryIO | io.RawIOBase,
    fps: float,
    metadata: Metadata | None,
    keep_partial: bool,
    encoder: EncoderSettings | None,
    raw: bool,
) -> FrameWriter:
    if not isinstance(path, str | os.PathLike):
        if raw:
            EncoderSettings.refuse(encoder, "raw video")
            return RawWriter(path, fps)
        return LiveWriter(path, fps, metadata=metadata, encoder=encoder)
    if raw:
        raise ValueError("raw is for a binary file or stdout; a file's name tells what it holds")
    text = os.fspath(path)
    if text == "-":
        raise ValueError(
            "- names no file; give a binary file such as sys.stdout.buffer, or a path such as ./-"
        )
    kind = _kind(text)
    if kind.removesuffix("://") in CONTAINERS:
        return NetworkWriter(text, fps, metadata=metadata, encoder=encoder)
    options: dict[str, Any] = {"metadata": metadata, "keep_partial": keep_partial}
    if kind == _PLAYLIST:
        return HlsWriter(text, fps, encoder=encoder, **options)
    if kind in _ENCODED:
        return _ENCODED[kind](text, fps, encoder=encoder, **options)
    EncoderSettings.refuse(encoder, text)
    if kind in _PICTURES:
        return _PICTURES[kind](text, fps, **options)
    if kind == _CAMERA:
        return CameraWriter(text.removeprefix(_CAMERA), fps, metadata=metadata)
    if kind == _WINDOW:
        return WindowWriter(fps, metadata=metadata)
    files = ", ".join([*_ENCODED, *(name for name in _PICTURES if name != "/")])
    if "://" in kind:
        known = ", ".join(f"{name}://" for name in CONTAINERS)
        raise ValueError(f"cannot send to {shown(text)}: unknown address {kind!r}; use {known}, or a file")
    raise ValueError(
        f"cannot write {text}: unknown extension {kind!r}; use {files} (contact sheets), {_PLAYLIST} (HLS), "
        "or a folder name ending in /"
    )


def _kind(text: str) -> str:
    """The extension, "/" for a folder, or the scheme of an address."""
    if address := re.match(r"[a-z][a-z0-9+.-]*://", text):
        return address.group()
    if text.startswith(_CAMERA) or text == _WINDOW:
        return text[: text.index(":") + 1]
    if text.endswith(("/", os.sep)):
        return "/"
    return Path(text).suffix.lower() or "/"


def is_live(path: PathLike) -> bool:
    """Whether an output is shown as it is made, and leaves no file: an address, a camera, a window."""
    return ":" in _kind(os.fspath(path))


def check_output(path: PathLike, *, encoder: EncoderSettings | None = None) -> None:
    """Refuse an output that `open_writer` would refuse, or whose receiver is not there; nothing is left.

    Raises:
        ValueError: as `open_writer` does.
    """
    open_writer(path, fps=1, encoder=encoder).discard()
    if _kind(os.fspath(path)).removesuffix("://") in CONTAINERS:
        check_receiver(os.fspath(path))
