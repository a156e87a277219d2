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
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder to fill beside `path`, which takes that name at the end.

    When the block fails, the new folder is removed, and an old one stays as it was.

    Args:
        replace: put it in the place of a folder that is there already.

    Raises:
        FileExistsError: when `path` is there already and is not to be replaced.
        OSError: when it cannot be written.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists; give a new directory, or remove it first")
    temporary = _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if replace:
            replace_folder(path, temporary)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(path: str | Path, new: Path) -> None:
    """Give a finished folder the name of another, which is removed after that; there need not be another.

    The old folder is never removed before the new one has its name. A process that is killed between the two
    leaves it as `.<random>.old.<name>` beside `path`.

    Args:
        path: the name.
        new: a folder of the same file system.

    Raises:
        OSError: when a folder cannot be renamed; the old one then has its name back.
    """
    path = Path(path)
    old = _beside(path, "old")
    try:
        path.rename(old)
    except FileNotFoundError:
        new.rename(path)
        return
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _beside(path: Path, kind: str = "tmp") -> Path:
    """A hidden name in the same folder that ends alike and that no other writer has."""
    return path.with_name(f".{secrets.token_hex(4)}.{kind}.{path.name}")
