"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place at the end: readers see all of it or the old one.

    When the block fails, what it wrote is removed. Both names end alike.

    Raises:
        OSError: when it cannot be written, or nothing was.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill beside `path`, which takes that name at the end.

    When the block fails, it is removed.

    Raises:
        FileExistsError: when `path` is there already.
        OSError: when it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; give a new directory, or remove it first")
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
