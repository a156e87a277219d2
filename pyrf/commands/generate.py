"""`pyrf generate`: a video from a prompt."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from pyrf import printing
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DeviceOption,
    DtypeOption,
    ExportedOption,
    HeightOption,
    ModelOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
    WidthOption,
    check_seconds,
    seconds_option,
    use_threads,
)
from pyrf.commands.progress import ProgressLines
from pyrf.moments import parse_time, split_time
from pyrf.stops import Stopped, held
from pyrf.streaming.timeline import Switch, place

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline
    from pyrf.streaming.stream import Stream
    from pyrf.video.writer import Frames, Sink


STDOUT = "-"


def _switches(given: list[str] | None, end: float) -> list[Switch]:
    """`2.5:a blue square` -> Switch("--at 2.5", 2.5, "a blue square").

    Raises:
        ValueError: when a text has another form, or the time does not come before the end.
    """
    switches = []
    for text in given or ():
        try:
            moment, prompt = split_time(text)
            start = parse_time(moment)
        except ValueError as error:
            raise ValueError(f"--at: {error}") from None
        if start >= end:
            length = printing.counted(end, "second")
            raise ValueError(f"--at {moment} lies outside the video, which lasts {length}")
        switches.append(Switch(f"--at {moment}", start, prompt))
    return switches


def generate(
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="x.mp4, x.gif, x.webp, x.png (contact sheet), x/ (a folder of PNGs), or - (stdout).",
        ),
    ],
    seconds: Annotated[float, seconds_option("Length of the video: seconds, or [hh:]mm:ss.")] = 5.0,
    seed: Annotated[int, typer.Option(help="The same seed and prompts give the same frames.")] = 0,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="Switch the prompt where the next chunk starts; may be repeated; times as for --seconds.",
            metavar="TIME:PROMPT",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Continue from this image, or from the end of this video.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    student: StudentOption = None,
    stream: StreamOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    exported: ExportedOption = None,
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="When stopped, keep the frames that are there.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Make a video from a prompt. `pyrf words` lists the words that a model knows."""
    check_seconds(seconds)
    switches, choice = _switches(at, seconds), stream_choice(stream or ())
    shown = "stdout" if output == STDOUT else output
    with _target(output) as target:
        start = time.perf_counter()
        use_threads(threads)
        from pyrf.pipeline import StreamingPipeline
        from pyrf.streaming.notices import told_elsewhere
        from pyrf.streaming.prompts import as_prompts
        from pyrf.video.files import open_writer

        pipe = StreamingPipeline.from_pretrained(
            model,
            student=student,
            backend=backend,
            dtype=dtype,
            device=device,
            stream=choice,
            exported=exported,
        )
        num_frames = max(1, round(seconds * pipe.fps))
        timeline = place(pipe.model, switches, continues=image is not None, num_frames=num_frames)
        opening = None if image is None else _read_opening(pipe, image, height, width)
        load_s = time.perf_counter() - start
        prompts = [text for one in (prompt, *timeline.values()) for text in as_prompts(one)]
        for notice in pipe.model.notices(*prompts, height=height, width=width):
            printing.tell(f"warning: {notice}; see pyrf words")

        start = time.perf_counter()
        with told_elsewhere():
            begun = pipe.stream(
                prompt, seed=seed, height=height, width=width, video=opening, timeline=timeline
            )
        metadata = pipe.metadata(prompt, seed, timeline, continues=opening is not None)
        writer = open_writer(target, pipe.fps, metadata=metadata, keep_partial=keep_partial)
        try:
            first_s = _fill(writer, begun, num_frames, start)
        except Stopped as stopped:
            so_far = f"after {writer.num_frames} of {printing.counted(num_frames, 'frame')}"
            if writer.num_frames == num_frames:
                stopped.add_note(f"when {shown} was whole")
            elif output == STDOUT:
                stopped.add_note(so_far)
            elif not keep_partial:
                stopped.add_note(f"{so_far}; --keep-partial would keep them")
            raise
        total_s = time.perf_counter() - start
        made = f"{printing.counted(num_frames, 'frame')}, {num_frames / pipe.fps:.2f} s of video"
        printing.say(
            f"{shown}: {made}; "
            f"{num_frames / total_s:.1f} FPS end to end, first frame {1e3 * first_s:.0f} ms after load, "
            f"load {load_s:.2f} s"
        )


@contextmanager
def _target(output: str) -> Iterator[str | BinaryIO]:
    """Where the video goes, looked at before the model is loaded.

    Raises:
        ValueError: when it cannot be written.
    """
    if output == STDOUT:
        with printing.claimed_stdout() as binary:
            yield binary
        return
    from pyrf.video.files import check_output

    check_output(output)
    yield output


def _fill(writer: Sink, stream: Stream, num_frames: int, start: float) -> float:
    """Write a stream's first frames; return the seconds from `start` to the first chunk."""
    from pyrf.video.writer import FileWriter

    first_s = math.nan
    with _Progress(num_frames) as progress, stream, writer:
        while writer.num_frames < num_frames:
            frames = next(stream).frames[: num_frames - writer.num_frames]
            if not writer.num_frames:
                first_s = time.perf_counter() - start
            is_last = writer.num_frames + len(frames) == num_frames
            # From its last frame to its name, a signal would lose finished work. A pipe may block for ever.
            with held() if is_last and isinstance(writer, FileWriter) else nullcontext():
                writer.write(frames)
                if is_last:
                    writer.close()
            progress.advance(len(frames))
    return first_s


def _read_opening(pipe: StreamingPipeline, path: str, height: int | None, width: int | None) -> Frames:
    """The frames to continue from, in the size and rate of the stream: no more than its window holds."""
    from pyrf.video.reader import read_frames

    height, width = pipe.check_size(height, width)
    limit = pipe.num_frames_of(pipe.stream_config.slots)
    return read_frames(path, height=height, width=width, fps=pipe.fps, limit=limit)


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
