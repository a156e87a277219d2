"""A stream's frames into a file, with a bar on the way."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from pyrf.commands.progress import ProgressLines
from pyrf.stops import held

if TYPE_CHECKING:
    from pyrf.streaming.stream import Stream
    from pyrf.video.writer import Sink


def fill(writer: Sink, stream: Stream, num_frames: int, start: float) -> float:
    """Write a stream's first frames; return the seconds from `start` to the first chunk."""
    from pyrf.video.writer import FileWriter

    first_s = math.nan
    with _Progress(num_frames) as progress, stream, writer:
        while writer.num_frames < num_frames and (chunk := next(stream, None)) is not None:
            frames = chunk.frames[: num_frames - writer.num_frames]
            if not writer.num_frames:
                first_s = time.perf_counter() - start
            is_last = writer.num_frames + len(frames) == num_frames
            # From its last frame to its name, a signal would lose finished work. A pipe may block for ever.
            with held() if is_last and isinstance(writer, FileWriter) else nullcontext():
                writer.write(frames)
                if is_last:
                    writer.close()
            progress.advance(len(frames))
        if not writer.num_frames:
            raise ValueError("the source holds no frames")
    return first_s


class _Progress:
    """A bar with the frame rate on stderr; lines where that is no terminal."""

    def __init__(self, num_frames: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames, {task.fields[fps]:.1f} FPS"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("frames", total=num_frames, fps=0.0)
        self._lines = None if console.is_terminal else ProgressLines(num_frames)
        self._done = 0

    def advance(self, num_frames: int) -> None:
        self._done += num_frames
        with suppress(OSError):  # the terminal has gone; the video goes on
            if self._lines is not None:
                self._lines.reach(self._done)
            self._bar.update(
                self._task, completed=self._done, fps=self._done / (time.perf_counter() - self._start)
            )

    def __enter__(self) -> _Progress:
        self._start = time.perf_counter()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._bar.stop()
