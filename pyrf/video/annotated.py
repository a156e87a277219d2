"""What FFmpeg writes without a word of how it was made: APNG and WebP, completed once they are whole."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

from pyrf.video.metadata import Metadata, as_json

_PNG_END_BYTES = 12
"""Of the last block, IEND, which is empty: length, name and checksum."""
_WEBP_HAS_EXIF, _WEBP_HAS_ALPHA = 0x08, 0x10
_EXIF_DESCRIPTION = 0x010E


def add_to_apng(file: io.RawIOBase | BinaryIO, metadata: Metadata) -> None:
    """Put all of it into a finished PNG as the text `Comment`, before its last block.

    Args:
        file: readable and writable, at any position.
    """
    end = file.seek(-_PNG_END_BYTES, io.SEEK_END)
    last = file.read(_PNG_END_BYTES)
    text = b"Comment\0\0\0\0\0" + as_json(metadata).encode()
    block = b"iTXt" + text
    file.seek(end)
    file.write(struct.pack(">I", len(text)) + block + struct.pack(">I", zlib.crc32(block)) + (last or b""))


def add_to_webp(file: io.RawIOBase | BinaryIO, metadata: Metadata, height: int, width: int) -> None:
    """Put all of it into a finished WebP as the description of its EXIF data, in ASCII.

    Args:
        file: readable and writable, at any position.
        height, width: of the picture.
    """
    from PIL import Image

    exif = Image.Exif()
    exif[_EXIF_DESCRIPTION] = as_json(metadata, ascii_only=True)
    block = _webp_block(b"EXIF", exif.tobytes().removeprefix(b"Exif\0\0"))
    file.seek(12)
    head = file.read(18) or b""
    if head[:4] == b"VP8X":
        file.seek(20)
        file.write(bytes([head[8] | _WEBP_HAS_EXIF]))
    else:  # one frame alone is written as a simple file, which has no place for more
        file.seek(12)
        rest = file.read() or b""
        flags = _WEBP_HAS_EXIF | (_WEBP_HAS_ALPHA if head[:4] == b"VP8L" else 0)
        sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        file.seek(12)
        file.write(_webp_block(b"VP8X", bytes([flags, 0, 0, 0]) + sizes) + rest)
    end = file.seek(0, io.SEEK_END)
    file.write(block)
    file.seek(4)
    file.write(struct.pack("<I", end + len(block) - 8))


def _webp_block(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
