"""A small file that claims to be a huge picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from pyrf.video.reader import read_frames


def png_of(width: int, height: int) -> bytes:
    """A PNG that says its size, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_a_huge_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_of(60_000, 60_000))
    with pytest.raises(ValueError, match=r"huge\.png.* exceeds limit of \d+ pixels"):
        read_frames(path, height=64, width=96, fps=16)
