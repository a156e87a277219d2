"""A file by its descriptor, for muxers: it can be finished on a full disk, and after its folder has gone."""

from __future__ import annotations

import io
import os
from typing import Any

RESERVE = 2**20
"""Bytes kept free behind what is written, so that the end fits when the disk is full."""


class HeldFile(io.RawIOBase):
    """Reads and writes an open file at a position of its own.

    Args:
        descriptor: of the file; it stays open when this is closed.
        original: another view of the same file, where this one is only to be read.

    Attributes:
        size: bytes up to the last one written; the reserve lies behind.
    """

    def __init__(self, descriptor: int, original: HeldFile | None = None) -> None:
        self._descriptor, self._original = descriptor, original
        self._position = self._reserved = self._size = 0

    @property
    def size(self) -> int:
        return self._size if self._original is None else self._original.size

    def twin(self) -> HeldFile:
        """The same file, to be read from its beginning."""
        return HeldFile(self._descriptor, self)

    def reserve(self, more: int) -> None:
        """Keep `RESERVE` and `more` bytes free behind what is written.

        Raises:
            OSError: when the disk has them no longer; what was reserved before is still there.
        """
        wanted = self._size + RESERVE + more
        if wanted <= self._reserved or self._reserved < 0:
            return
        try:
            os.posix_fallocate(self._descriptor, 0, wanted + RESERVE)
            self._reserved = wanted + RESERVE
        except (AttributeError, OSError):  # macOS has no such call
            if self._reserved:
                raise
            self._reserved = -1  # never: the file system cannot, or is so full that only a small file fits

    def trim(self) -> None:
        """Give back what was reserved."""
        os.ftruncate(self._descriptor, self._size)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        view = view[: max(0, self.size - self._position)]
        count = os.preadv(self._descriptor, [view], self._position)
        self._position += count
        return count

    def write(self, data: Any) -> int:
        """Write all of it: muxers do not look at how much was taken."""
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += os.pwrite(self._descriptor, view[written:], self._position + written)
        self._position += written
        self._size = max(self._size, self._position)
        return written
