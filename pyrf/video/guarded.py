"""Keeps Ctrl-C and its like out of a muxer: its C code passes on nothing but an `Exception`."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")


class GuardedFile(io.RawIOBase):
    """Hands a muxer's calls on to a file. What may not leave them is kept for later, and the call fails.

    Args:
        target: the file.
    """

    def __init__(self, target: io.RawIOBase | BinaryIO) -> None:
        self._target = target
        self._stop: BaseException | None = None

    @contextmanager
    def passing_on(self) -> Iterator[None]:
        """Around a call of the muxer: raise behind it what was kept."""
        try:
            yield
        finally:
            if self._stop is not None:
                raise self._stop

    def readable(self) -> bool:
        return self._target.readable()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._target.seekable()

    def tell(self) -> int:
        return self._call(self._target.tell)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._call(lambda: self._target.seek(offset, whence))

    def readinto(self, buffer: Any) -> int | None:
        return self._call(lambda: self._target.readinto(buffer))  # type: ignore[union-attr]

    def write(self, data: Any) -> int | None:
        return self._call(lambda: self._target.write(data))

    def _call(self, function: Callable[[], T]) -> T:
        try:
            if self._stop is None:
                return function()
        except Exception:
            raise
        except BaseException as stop:
            self._stop = stop
        raise OSError(errno.EINTR, os.strerror(errno.EINTR)) from self._stop
