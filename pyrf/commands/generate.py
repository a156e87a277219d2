"""`pyrf generate`: a video from a prompt."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf.commands.options import (
    BackendOption,
    DeviceOption,
    DtypeOption,
    ExportedOption,
    HeightOption,
    ModelOption,
    StudentOption,
    ThreadsOption,
    WidthOption,
    WindowOption,
    check_seconds,
    use_threads,
)
from pyrf.commands.progress import ProgressLines

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline
    from pyrf.streaming.model import StreamModel
    from pyrf.video.writer import Frames


@dataclass(frozen=True)
class Switch:
    """From the first chunk that starts at `seconds` or later, the stream shows `prompt`."""

    seconds: float
    prompt: str


def parse_switch(text: str, end: float) -> Switch:
    """`2.5:a blue star` -> Switch(2.5, "a blue star").

    Raises:
        ValueError: when the text has another form or the moment lies outside the video.
    """
    moment, colon, prompt = text.partition(":")
    try:
        seconds = float(moment)
    except ValueError:
        seconds = math.nan
    if not colon or math.isnan(seconds):
        raise ValueError(f"--at needs SECONDS:PROMPT, such as '2.5:a blue star', got {text!r}")
    if not 0 <= seconds < end:
        raise ValueError(f"--at {moment} lies outside the video, which lasts {end:g} seconds")
    return Switch(seconds, prompt.strip())


def generate(
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="x.mp4, x.gif, x.png (contact sheet), or x/ (a folder of PNGs)."),
    ],
    seconds: Annotated[float, typer.Option(help="Length of the video.")] = 5.0,
    seed: Annotated[int, typer.Option(help="The same seed and prompts give the same frames.")] = 0,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="Switch the prompt where the next chunk starts; may be repeated.", metavar="SECONDS:PROMPT"
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Continue from this image, or from the end of this video.")
    ] = None,
    model: ModelOption = "tiny",
    student: StudentOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    window: WindowOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    exported: ExportedOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Make a video from a prompt."""
    from pyrf.video.files import check_output, open_writer

    check_seconds(seconds)
    switches = sorted((parse_switch(text, seconds) for text in at or ()), key=lambda switch: switch.seconds)
    check_output(output)

    start = time.perf_counter()
    use_threads(threads)
    from pyrf.pipeline import StreamingPipeline

    pipe = StreamingPipeline.from_pretrained(
        model,
        student=student,
        backend=backend,
        dtype=dtype,
        device=device,
        window_frames=window,
        exported=exported,
    )
    num_frames = max(1, round(seconds * pipe.fps))
    timeline = _timeline(pipe.model, switches, num_frames, continues=image is not None)
    opening = None if image is None else _read_opening(pipe, image, height, width)
    load_s = time.perf_counter() - start

    start = time.perf_counter()
    with (
        pipe.stream(
            prompt, seed=seed, height=height, width=width, video=opening, timeline=timeline
        ) as stream,
        open_writer(output, pipe.fps) as writer,
        _Progress(num_frames) as progress,
    ):
        first_s = math.nan
        while writer.num_frames < num_frames:
            frames = next(stream).frames[: num_frames - writer.num_frames]
            if not writer.num_frames:
                first_s = time.perf_counter() - start
            writer.write(frames)
            progress.advance(len(frames))
    total_s = time.perf_counter() - start
    typer.echo(
        f"{output}: {num_frames} frames, {num_frames / pipe.fps:.2f} s of video; "
        f"{num_frames / total_s:.1f} FPS end to end, first frame {1e3 * first_s:.0f} ms after load, "
        f"load {load_s:.2f} s"
    )


def _timeline(
    model: StreamModel, switches: list[Switch], num_frames: int, *, continues: bool
) -> dict[int, str]:
    """The chunks at which prompts begin; of several at one chunk the last counts.

    Raises:
        ValueError: when a prompt is not good, or comes after the last chunk has started.
    """
    last = model.chunk_of_frame(num_frames, continues=continues) - 1
    timeline = {}
    for switch in switches:
        model.check_prompt(switch.prompt)
        chunk = model.chunk_of_frame(switch.seconds * model.fps, continues=continues)
        if chunk > last:
            latest = math.floor(1e3 * model.start_of_chunk(last, continues=continues) / model.fps) / 1e3
            raise ValueError(
                f"--at {switch.seconds:g} comes too late: a prompt changes where a chunk starts, "
                f"in this video last at {latest:.10g} seconds"
            )
        timeline[chunk] = switch.prompt
    return timeline


def _read_opening(pipe: StreamingPipeline, path: Path, height: int | None, width: int | None) -> Frames:
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
        self._bar.stop()
