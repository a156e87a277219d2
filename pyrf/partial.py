"""Output that is under way: hidden beside its target and held by a lock, until it takes the target's name.

Every command imports this before it hears signals, so what takes time to load is loaded late.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

MAX_NAME_BYTES = 255
"""Of a file's name, on every file system in use."""

_HIDDEN = re.compile(r"\.[0-9a-f]{8}\.tmp\.")
_living: set[Partial] = set()


class KeptError(OSError):
    """What was made is whole, but it cannot take its name.

    Attributes:
        kept: where it is.
    """

    def __init__(self, target: Path, kept: Path, reason: str) -> None:
        super().__init__(f"cannot write {target}: {reason}; what was made is whole and kept as {kept}")
        self.kept = kept


class Partial:
    """A file or folder to fill. Its name is hidden, in the target's folder, and ends as the target's does.

    The process that fills it holds a lock, so that others can tell it from what a killed process left.
    Such leftovers of the same target are removed here. A symlink is followed: what it points to is replaced.

    Args:
        target: what it becomes.
        folder: whether it is a folder.

    Attributes:
        path: what to fill. A file is written into, never replaced.
        target: the target, without symlinks.
        descriptor: of the open file or folder, which stays valid when its name is gone.

    Raises:
        OSError: when the place cannot be written.
    """

    def __init__(self, target: str | Path, *, folder: bool = False) -> None:
        self.target = Path(os.path.realpath(target))
        self._folder, self._process = folder, os.getpid()
        _remove_leftovers(self.target)
        while True:
            hidden = f".{os.urandom(4).hex()}.tmp.{_tail(self.target.name)}"
            self.path = self.target.parent / hidden
            if folder:
                self.path.mkdir()
                self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            else:
                self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            with suppress(OSError):  # a file system without locks, where nobody removes leftovers either
                fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            if self._has_its_name():  # else another process took it for a leftover, just before the lock
                break
            os.close(self.descriptor)
        _living.add(self)

    def commit(self) -> None:
        """Give it the target's name. A file that is there is replaced, and so is an empty folder.

        Raises:
            KeptError: when it cannot have this name; it is whole, and elsewhere.
            OSError: when the disk did not take all of it.
        """
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # it cannot be asked on this file system
                raise
        try:
            if self._folder and self.target.is_dir():
                self.target.rmdir()
            self.path.replace(self.target)
        except OSError as error:
            reason, kept = error.strerror or str(error), self.keep()
            if not kept.exists():
                raise OSError(
                    f"cannot write {self.target}: {reason}; its folder went, with what was made"
                ) from error
            raise KeptError(self.target, kept, reason) from error
        self._end()

    def keep(self) -> Path:
        """Give it a name beside the target that is free and not hidden; return where it is then.

        Where the folder takes no new name, or is gone, it goes to the system's folder of temporary files.
        """
        if not self._has_its_name():
            self._find()
        try:
            self.path = self._renamed()
        except OSError:
            with suppress(OSError):
                self.path = self._copied()
        self._end()
        return self.path

    def remove(self) -> None:
        """Drop it, unless it has been given a name; the target stays as it was."""
        if self in _living:
            _remove(self.path)
            self._end()

    def _end(self) -> None:
        if self in _living:
            _living.remove(self)
            os.close(self.descriptor)

    def _has_its_name(self) -> bool:
        with suppress(OSError):
            return os.path.samestat(self.path.lstat(), os.fstat(self.descriptor))
        return False

    def _find(self) -> None:
        """Its folder was renamed or removed: where Linux tells, follow it."""
        with suppress(OSError):
            moved = Path(f"/proc/self/fd/{self.descriptor}").readlink()
            if os.path.samestat(moved.lstat(), os.fstat(self.descriptor)):
                self.path = moved

    def _renamed(self) -> Path:
        for name in _numbered(self.path.parent / self.target.name):
            if os.path.lexists(name):
                continue
            with suppress(FileExistsError):
                if self._folder:
                    self.path.rename(name)
                    return name
                try:
                    name.hardlink_to(self.path)  # unlike a rename it replaces nothing
                except PermissionError:  # also where there are no hard links
                    self.path.rename(name)
                else:
                    self.path.unlink()
                return name
        raise AssertionError  # there are numbers without end

    def _copied(self) -> Path:
        import shutil
        import tempfile

        place = Path(tempfile.mkdtemp(prefix="pyrf-")) / self.target.name
        if self._folder:
            shutil.copytree(self.path, place)
        else:
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            with os.fdopen(os.dup(self.descriptor), "rb") as source, place.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        return place


def remove_living() -> None:
    """Remove all that this process has under way: it ends at once."""
    for partial in list(_living):
        if partial._process == os.getpid():  # what a parent makes is not a child's to remove
            _remove(partial.path)


def remove_dead(path: Path) -> None:
    """Remove a partial file or folder, if the process that filled it has ended."""
    if not _HIDDEN.match(path.name):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except OSError:  # it is held
        pass
    finally:
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    end = f".tmp.{_tail(target.name)}"
    with suppress(OSError):
        for path in target.parent.iterdir():
            if path.name.endswith(end) and len(path.name) == len(end) + 9:
                remove_dead(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _tail(name: str) -> str:
    """The end of a hidden name: the target's name, or a short stand-in where both are too long together."""
    if len(os.fsencode(name)) + len(".00000000.tmp.") <= MAX_NAME_BYTES:
        return name
    import hashlib

    suffix = Path(name).suffix[:32]
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16] + suffix


def _numbered(target: Path) -> Iterator[Path]:
    """`a-1.mp4`, `a-2.mp4`, ... beside `a.mp4`."""
    for number in count(1):
        yield target.with_name(f"{target.stem}-{number}{target.suffix}")
