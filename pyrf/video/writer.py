"""Where frames go: the protocol `Sink`, and what all sinks that write files share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pyrf.config import MAX_FPS, MIN_FPS
from pyrf.files import expanded
from pyrf.partial import KeptError, Partial
from pyrf.printing import counted
from pyrf.stops import held
from pyrf.video.metadata import Metadata, as_json

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
        """Finish the output; after that, leaving the block changes nothing.

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


class FrameWriter(ABC):
    """What all sinks share: frames are looked at before they are taken.

    Args:
        name: of the output, for errors.
        fps: frames per second.
        metadata: what the output says of how it was made, if it can; JSON values by name.

    Attributes:
        num_frames: taken so far.
        size: height and width of a frame, once there was one.
        transform: changes frames before they are taken, and not their size.

    Raises:
        ValueError: when fps lies outside of what files can say, or metadata is not JSON's.
    """

    multiple: ClassVar[int] = 1
    kind: str = "a video"

    def __init__(self, name: str, fps: float, metadata: Metadata | None = None) -> None:
        if not MIN_FPS <= fps <= MAX_FPS:
            raise ValueError(f"fps must lie in {MIN_FPS:g}..{MAX_FPS:g}, got {fps}")
        self.name, self.fps, self.metadata = name, fps, dict(metadata or {})
        as_json(self.metadata)  # refuse what cannot be said before the first frame
        self.num_frames = 0
        self.size: tuple[int, int] | None = None
        self.transform: Callable[[Frames], Frames] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} to {self.name}: {counted(self.num_frames, 'frame')} at {self.fps:g} fps>"
        )

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
        if self.size is None:
            if not height or not width or height % self.multiple or width % self.multiple:
                raise ValueError(
                    f"{self.kind} needs a height and width that are multiples of {self.multiple}, "
                    f"got {height} x {width}"
                )
            self.size = height, width
            self._open(height, width)
        if (height, width) != self.size:
            raise ValueError(
                f"all frames must have the size of the first, {self.size[0]} x {self.size[1]}, "
                f"got {height} x {width}"
            )
        shown = frames if self.transform is None else self.transform(frames)
        for index, frame in enumerate(shown):
            self._take(np.ascontiguousarray(frame), begins=index == 0)

    @abstractmethod
    def close(self) -> None:
        """Finish the output. This and `discard` set `_closed`."""

    @abstractmethod
    def discard(self) -> None:
        """Drop what was written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closed:
            return
        if error is None:
            self.close()
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The block has raised an error."""
        self.discard()

    def _take(self, frame: Frames, *, begins: bool) -> None:
        """Take a frame and count it; `begins` with the first of a call of `write`."""
        self._append(frame)
        self.num_frames += 1

    def _open(self, height: int, width: int) -> None:  # noqa: B027  (not all outputs need it)
        """Prepare for frames of this size; called once, before the first frame."""

    @abstractmethod
    def _append(self, frame: Frames) -> None:
        """Take one contiguous frame [H, W, 3]."""


class FileWriter(FrameWriter):
    """A `Sink` that writes one file or folder, which appears whole when the block exits well.

    Frames go to a hidden partial file beside the target. It is made at once, so a place that cannot be
    written is refused before any frame is. An error or Ctrl-C removes the partial file, or with
    `keep_partial` makes a whole file of what came before. A symlink is followed: what it points to is
    written.

    Args:
        path: the output.
        fps: frames per second.
        metadata: what the file says of how it was made; JSON values by name.
        keep_partial: whether an error in the block keeps the frames before it, see `keep`.

    Attributes:
        kept: where they are then.

    Raises:
        ValueError: when the place cannot be written, or fps lies outside of what files can say.
    """

    is_folder: ClassVar[bool] = False

    def __init__(
        self,
        path: PathLike,
        fps: float,
        *,
        metadata: Metadata | None = None,
        keep_partial: bool = False,
    ) -> None:
        super().__init__(os.fspath(path), fps, metadata)
        self.path = Path(expanded(path))
        self.kind = self.path.suffix or self.kind
        self.keep_partial = keep_partial
        self.kept: Path | None = None
        self._target = Path(os.path.realpath(self.path))
        self._partial = self._make_partial()

    def close(self) -> None:
        """Finish the output and move it to its place.

        Raises:
            ValueError: when nothing was written, or it cannot be finished.
            KeptError: when it is whole and cannot take its place; it is kept beside it.
        """
        self._closed = True
        with held():
            try:
                if not self.num_frames:
                    raise ValueError(f"no frames were written to {self.path}")
                self._finish()
                self._partial.commit()
            except BaseException:
                self.discard()
                raise

    def keep(self) -> Path | None:
        """End the output before its time: what was written becomes a whole file; None where that is nothing.

        It is at the output's place if nothing was there, else beside it with a number, as `out-1.mp4`.

        Raises:
            ValueError: when it cannot be finished.
        """
        self._closed = True
        if not self.num_frames:
            self.discard()
            return None
        with held():
            try:
                self._finish()
                if os.path.lexists(self._target) and not self.is_folder:
                    self.kept = self._partial.keep()
                else:
                    self._partial.commit()
                    self.kept = self.path
            except KeptError as error:
                self.kept = error.kept
            except BaseException:
                self.discard()
                raise
        return self.kept

    def discard(self) -> None:
        """Drop what was written; the target stays as it was."""
        self._closed = True
        with suppress(Exception):
            self._abort()
        self._partial.remove()

    def _fail(self, error: BaseException) -> None:
        if not self.keep_partial:
            self.discard()
            return
        made = counted(self.num_frames, "frame")
        try:
            kept = self.keep()
        except (ValueError, OSError) as failure:
            error.add_note(f"({made} could not be kept: {failure})")
        else:
            error.add_note(f"({made} kept as {kept})" if kept else "(there was no frame to keep)")

    def _take(self, frame: Frames, *, begins: bool) -> None:
        with held():  # a file with half a frame could not be kept
            super()._take(frame, begins=begins)

    def _make_partial(self) -> Partial:
        try:
            if os.path.ismount(self._target):
                raise ValueError(f"cannot write {self.path}: nothing can replace a mount point; name another")
            self._check_target()
            return Partial(self._target, folder=self.is_folder)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _check_target(self) -> None:
        """Refuse what the output cannot replace."""
        if self._target.is_dir():
            raise ValueError(f"cannot write {self.path}: it is a directory")

    @abstractmethod
    def _finish(self) -> None:
        """Complete the partial output."""

    def _abort(self) -> None:
        """Release what holds the partial output open."""


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write {path}: {error.strerror or error}; choose a place that can be written")
