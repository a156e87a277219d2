"""What a file says of how it was made: prompt, seed, model and version, in the words of each format.

Every format has all of it as one JSON object: MP4, MOV, Matroska and WebM under `comment`, GIF and JPEG as
their comment, PNG and APNG under `Comment`, WebP as the description of its EXIF data. Those of video and
PNG have the first prompt as a description too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

Metadata = Mapping[str, Any]
"""JSON values by name; `prompt` is the first prompt."""

_GIF_HEADER_BYTES = 13


def as_json(metadata: Metadata, *, ascii_only: bool = False) -> str:
    """All of it in one line.

    Raises:
        ValueError: when a value is not of JSON's.
    """
    try:
        return _encodable(json.dumps(dict(metadata), ensure_ascii=ascii_only))
    except TypeError as error:
        raise ValueError(f"metadata must have JSON values: {error}") from None


def _encodable(text: str) -> str:
    """Half characters, as of a command line that is no UTF-8, become escapes; JSON reads them back."""
    return text.encode(errors="backslashreplace").decode()


def for_container(metadata: Metadata) -> dict[str, str]:
    """Tags of MP4, MOV, Matroska and WebM, as ffprobe shows them."""
    if not metadata:
        return {}
    tags = {"comment": as_json(metadata)}
    if "prompt" in metadata:
        tags["description"] = _encodable(str(metadata["prompt"]))
    return tags


def for_png(metadata: Metadata) -> PngInfo | None:
    """Text chunks of a PNG."""
    from PIL.PngImagePlugin import PngInfo

    if not metadata:
        return None
    info = PngInfo()
    info.add_itxt("Comment", as_json(metadata))
    if "prompt" in metadata:
        info.add_itxt("Description", _encodable(str(metadata["prompt"])))
    return info


MAX_JPEG_BYTES = 65_533
"""Of a JPEG's comment."""


def for_jpeg(metadata: Metadata) -> bytes | None:
    """The comment of a JPEG.

    Raises:
        ValueError: when it is longer than a comment may be.
    """
    if not metadata:
        return None
    comment = as_json(metadata).encode()
    if len(comment) > MAX_JPEG_BYTES:
        raise ValueError(f"a JPEG holds {MAX_JPEG_BYTES} bytes of metadata, got {len(comment)}; choose .png")
    return comment


class CommentedGif(io.RawIOBase):
    """Passes a GIF on as it is written, with a comment behind its header; FFmpeg writes none.

    Args:
        target: where it goes.
        metadata: what the comment says.
    """

    def __init__(self, target: io.RawIOBase | BinaryIO, metadata: Metadata) -> None:
        self._target = target
        self._comment = _gif_comment(as_json(metadata)) if metadata else b""
        self._head: bytes | None = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        taken = bytes(data)
        if self._head is None:
            self._target.write(taken)
            return len(taken)
        self._head += taken
        end = _end_of_gif_header(self._head)
        if end is not None:
            self._target.write(self._head[:end] + self._comment + self._head[end:])
            self._head = None
        return len(taken)


def _end_of_gif_header(head: bytes) -> int | None:
    """Where the header and the palette of all pictures end, if they are there already."""
    if len(head) < _GIF_HEADER_BYTES:
        return None
    flags = head[10]
    end = _GIF_HEADER_BYTES + (3 * 2 ** (1 + (flags & 7)) if flags & 0x80 else 0)
    return end if len(head) >= end else None


def _gif_comment(text: str) -> bytes:
    """A comment extension: blocks of up to 255 bytes."""
    data = text.encode()
    blocks = (data[i : i + 255] for i in range(0, len(data), 255))
    return b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00"
