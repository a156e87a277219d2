"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrf.partial import Partial


def expanded(path: str | os.PathLike[str]) -> str:
    """A path with its leading `~` or `~user` replaced by the home folder, as a shell does.

    Raises:
        ValueError: when there is no such home folder.
    """
    text = os.fspath(path)
    if not text.startswith("~"):
        return text
    full = os.path.expanduser(text)  # noqa: PTH111  (pathlib drops a slash at the end)
    if full == text:
        raise ValueError(
            f"{text}: there is no home folder {text.partition('/')[0]!r} here; give a path without ~ "
            "(./~... for a file of that name)"
        )
    return full


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place at the end: readers see all of it or the old one.

    When the block fails, what it wrote is removed. Both names end alike.

    Raises:
        KeptError: when it is whole and cannot take its place; it is kept beside it.
        OSError: when it cannot be written, or nothing was.
    """
    with _whole(Partial(expanded(path))) as partial:
        yield partial.path
        if not os.fstat(partial.descriptor).st_size and not partial.path.stat().st_size:
            raise FileNotFoundError(f"nothing was written to {path}")


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill beside `path`, which takes that name at the end.

    When the block fails, it is removed.

    Raises:
        FileExistsError: when `path` is there already.
        KeptError: when it is whole and cannot take its name; it is kept beside it.
        OSError: when it cannot be written.
    """
    path = Path(expanded(path))
    if path.exists():
        raise FileExistsError(f"{path} exists; give a new directory, or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _whole(Partial(path, folder=True)) as partial:
        yield partial.path


@contextmanager
def _whole(partial: Partial) -> Iterator[Partial]:
    try:
        yield partial
        partial.commit()
    finally:
        partial.remove()


def replace_folder(path: str | Path, new: Path) -> None:
    """Give a finished folder the name of another, which is removed after that; there need not be another.

    The old folder is never removed before the new one has its name. What a process leaves that is killed
    between the two, `restore_folder` puts right.

    Args:
        path: the name.
        new: a folder of the same file system.

    Raises:
        OSError: when a folder cannot be renamed; the old one then has its name back.
    """
    path = Path(path)
    restore_folder(path)
    old = _old(path)
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(path: str | Path) -> None:
    """Put right what a `replace_folder` left that was killed: the old folder gets its name back, or goes."""
    path = Path(path)
    old = _old(path)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(path)


def _old(path: Path) -> Path:
    """The name of a folder while another takes its place."""
    return path.with_name(f".{path.name}.old")
