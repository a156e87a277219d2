"""Where frames go: the protocol `Sink`, and what all sinks that write files share."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pyrf.config import MAX_FPS, MIN_FPS

Frames = NDArray[np.uint8]
"""uint8 [T, H, W, 3], RGB."""

PathLike = str | os.PathLike[str]


class Sink(Protocol):
    """Takes frames as they are made: a file, a folder, later a network address.

    A sink is a context manager. It is closed when its block exits well, and discarded after an error.
    """

    num_frames: int
    """Frames taken so far."""

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 [T, H, W, 3], all of one size.

        Raises:
            ValueError: when they have another dtype, shape or size, or cannot be written.
        """
        ...

    def close(self) -> None:
        """Finish the output.

        Raises:
            ValueError: when nothing was written, or it cannot be finished.
        """
        ...

    def discard(self) -> None:
        """Drop what was written."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FileWriter(ABC):
    """A `Sink` that writes one file or folder, which appears whole when the block exits well.

    Frames go to a hidden partial file beside the target. It is made at once, so a place that cannot be
    written is refused before any frame is. An error or Ctrl-C removes the partial file. A symlink is
    followed: what it points to is written.

    Args:
        path: the output.
        fps: frames per second.

    Raises:
        ValueError: when the place cannot be written, or fps lies outside of what files can say.
    """

    multiple: ClassVar[int] = 1

    def __init__(self, path: PathLike, fps: float) -> None:
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ValueError(f"fps must lie in {MIN_FPS:g}..{MAX_FPS:g}, got {fps}")
        self.path = Path(path)
        self._target = Path(os.path.realpath(path))
        self.fps = fps
        self.num_frames = 0
        self._size: tuple[int, int] | None = None
        self._partial = self._make_partial()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.path}: {self.num_frames} frames at {self.fps:g} fps>"

    def write(self, frames: Frames) -> None:
        """Append frames, uint8 [T, H, W, 3], all of one size.

        Raises:
            ValueError: for another dtype or shape, a size unlike the first one's, or an odd size in MP4.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}; "
                "write the clips of a batch one by one"
            )
        height, width = frames.shape[1:3]
        if self._size is None:
            if not height or not width or height % self.multiple or width % self.multiple:
                raise ValueError(
                    f"{self.path.suffix} needs a height and width that are multiples of {self.multiple}, "
                    f"got {height} x {width}"
                )
            self._size = height, width
            self._open(height, width)
        if (height, width) != self._size:
            raise ValueError(
                f"all frames must have the size of the first, {self._size[0]} x {self._size[1]}, "
                f"got {height} x {width}"
            )
        for frame in frames:
            self._append(np.ascontiguousarray(frame))
            self.num_frames += 1

    def close(self) -> None:
        """Finish the output and move it to its place."""
        try:
            if not self.num_frames:
                raise ValueError(f"no frames were written to {self.path}")
            self._finish()
            if self._partial.is_dir() and self._target.is_dir():
                self._target.rmdir()  # empty, or it would have been refused
            self._partial.replace(self._target)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Drop what was written; the target stays as it was."""
        with suppress(Exception):
            self._abort()
        if self._partial.is_dir():
            shutil.rmtree(self._partial, ignore_errors=True)
        else:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _make_partial(self) -> Path:
        target = self._target
        partial = target.parent / f".{target.name}.{os.getpid()}-{os.urandom(3).hex()}.partial"
        try:
            if os.path.ismount(target):
                raise ValueError(f"cannot write {self.path}: nothing can replace a mount point; name another")
            self._check_target()
            self._touch(partial)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return partial

    def _check_target(self) -> None:
        """Refuse what the output cannot replace."""
        if self._target.is_dir():
            raise ValueError(f"cannot write {self.path}: it is a directory")

    def _touch(self, partial: Path) -> None:
        """Begin the partial output, empty."""
        partial.touch(exist_ok=False)

    def _open(self, height: int, width: int) -> None:  # noqa: B027  (not all outputs need it)
        """Prepare for frames of this size; called once, before the first frame."""

    @abstractmethod
    def _append(self, frame: Frames) -> None:
        """Take one contiguous frame [H, W, 3]."""

    @abstractmethod
    def _finish(self) -> None:
        """Complete the partial output."""

    def _abort(self) -> None:  # noqa: B027
        """Release what holds the partial output open."""


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write {path}: {error.strerror or error}; choose a place that can be written")
