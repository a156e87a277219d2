"""The `pyrf` command. Heavy modules are imported inside the commands, so that help comes at once."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline
    from pyrf.video import Frames

app = typer.Typer(
    name="pyrf",
    help="Stream text-to-video in real time with Reward Forcing.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143

# The base of all errors in how a command is called; typer has no public name for it.
UsageError = cast(type[typer.BadParameter], typer.BadParameter.__bases__[0])

ModelOption = Annotated[
    str, typer.Option("--model", help="A bundled model, a model directory, or a hub id.", metavar="NAME|DIR")
]
StudentOption = Annotated[
    str | None, typer.Option("--student", help="Student weights over the model's, a file or a hub id.")
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32 or bfloat16.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...")]
BackendOption = Annotated[str, typer.Option("--backend", help="Who computes: torch.")]


def _version(wanted: bool) -> None:
    if wanted:
        from pyrf import __version__

        typer.echo(f"pyrf {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


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


@app.command()
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
        typer.Option(help="Switch the prompt in mid-stream; may be repeated.", metavar="SECONDS:PROMPT"),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Continue from this image, or from the end of this video.")
    ] = None,
    model: ModelOption = "tiny",
    student: StudentOption = None,
    height: Annotated[int | None, typer.Option(help="Of a frame, in pixels; by default the model's.")] = None,
    width: Annotated[int | None, typer.Option(help="Of a frame, in pixels; by default the model's.")] = None,
    window: Annotated[
        int | None,
        typer.Option(help="Latent frames that a chunk sees, itself included; by default the model's."),
    ] = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
) -> None:
    """Make a video from a prompt."""
    from pyrf.video import check_output, open_writer

    if not 0 < seconds < math.inf:
        raise ValueError(f"--seconds must be a positive number, got {seconds}")
    switches = sorted((parse_switch(text, seconds) for text in at or ()), key=lambda switch: switch.seconds)
    check_output(output)

    start = time.perf_counter()
    from pyrf.pipeline import StreamingPipeline

    pipe = StreamingPipeline.from_pretrained(
        model, student=student, backend=backend, dtype=dtype, device=device, window_frames=window
    )
    for switch in switches:
        pipe.check_prompt(switch.prompt)
    opening = None if image is None else _read_opening(pipe, image, height, width)
    load_s = time.perf_counter() - start

    num_frames = max(1, round(seconds * pipe.fps))
    start = time.perf_counter()
    with (
        pipe.stream(prompt, seed=seed, height=height, width=width, video=opening) as stream,
        open_writer(output, pipe.fps) as writer,
        _Progress(num_frames) as progress,
    ):
        first_s = math.nan
        while writer.num_frames < num_frames:
            while switches and switches[0].seconds * pipe.fps <= writer.num_frames:
                stream.prompt = switches.pop(0).prompt
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


def _read_opening(pipe: StreamingPipeline, path: Path, height: int | None, width: int | None) -> Frames:
    """The frames to continue from, in the size and rate of the stream: no more than its window holds."""
    from pyrf.video import read_frames

    height, width = pipe.check_size(height, width)
    limit = pipe.num_frames_of(pipe.stream_config.slots)
    return read_frames(path, height=height, width=width, fps=pipe.fps, limit=limit)


class _Progress:
    """A bar with the frame rate on stderr; silent where that is no terminal."""

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
        self._done = 0

    def advance(self, num_frames: int) -> None:
        self._done += num_frames
        self._bar.update(
            self._task, completed=self._done, fps=self._done / (time.perf_counter() - self._start)
        )

    def __enter__(self) -> _Progress:
        self._start = time.perf_counter()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


@app.command()
def doctor(model: ModelOption = "tiny") -> None:
    """Check the installation; exit code 1 when something is broken."""
    from pyrf.doctor import report

    if not report(model):
        raise typer.Exit(1)


@app.command()
def bench(
    model: ModelOption = "tiny",
    student: StudentOption = None,
    chunks: Annotated[int | None, typer.Option(help="Chunks a stream; by default 5 seconds of them.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a stream, instead of --chunks.")] = None,
    repeats: Annotated[int, typer.Option(help="Timed streams.")] = 5,
    warm_up: Annotated[int, typer.Option(help="Chunks of an untimed stream before them.")] = 4,
    threads: Annotated[int | None, typer.Option(help="CPU threads; by default torch's choice.")] = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    roofline: Annotated[
        bool,
        typer.Option("--roofline", help="Time nothing: the least that an H100 needs for Wan at 480x832."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time a model here, and say how it was timed."""
    if roofline:
        from pyrf import roofline_report

        floors = roofline_report.report()
        if as_json:
            typer.echo(json.dumps(floors.to_dict()))
        else:
            roofline_report.show(floors)
        return
    if chunks is not None and seconds is not None:
        raise ValueError("give --chunks or --seconds, not both")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"--seconds must be a positive number, got {seconds}")
    if threads is not None and threads < 1:
        raise ValueError(f"--threads must be at least 1, got {threads}")
    from pyrf import bench as bench_module

    bench_module.check_counts(chunks=chunks, repeats=repeats, warm_up=warm_up)
    start = time.perf_counter()
    import torch

    from pyrf.pipeline import StreamingPipeline

    if threads is not None:
        torch.set_num_threads(threads)
    pipe = StreamingPipeline.from_pretrained(
        model, student=student, backend=backend, dtype=dtype, device=device
    )
    load_s = time.perf_counter() - start
    if chunks is None:
        chunks = pipe.num_chunks_of(math.ceil((5.0 if seconds is None else seconds) * pipe.fps))
    result = bench_module.run(pipe, model, load_s=load_s, chunks=chunks, repeats=repeats, warm_up=warm_up)
    typer.echo(json.dumps(result.to_dict()) if as_json else bench_module.table(result))


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe (tiny), or a .yaml file.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, logs, pictures and the bundle.")],
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; may be repeated. By default all, in order.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes to train with; by default the recipe's.")
    ] = None,
) -> None:
    """Train by a recipe; the same command resumes. All stages done, the bundle is written to OUT/bundle."""
    import logging

    _require_training()
    from pyrf.training.recipe import load_recipe, run_stage
    from pyrf.training.ship import ship

    chosen = load_recipe(recipe)
    if processes is not None:
        if processes < 1:
            raise ValueError(f"--processes must be at least 1, got {processes}")
        chosen.processes = processes
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in stage or chosen.stages:
        run_stage(chosen, name, out)
    bundle = out / "bundle"
    if stage is None and not bundle.exists():
        typer.echo(
            f"{ship(chosen, out, bundle)}: try it with pyrf generate PROMPT --model {bundle} -o out.mp4"
        )


@app.command("eval")
def evaluate(
    model: ModelOption = "tiny",
    recipe: Annotated[str, typer.Option(help="The recipe whose world the prompts are from.")] = "tiny",
    prompts: Annotated[int, typer.Option(help="Held-out prompts.")] = 200,
    seconds: Annotated[float, typer.Option(help="Length of the streams; the last 5 s are judged.")] = 5.0,
    sheet: Annotated[Path, typer.Option(help="Where a contact sheet of 12 streams goes.")] = Path("eval.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge how well a bundle of the shapes world follows held-out prompts."""
    _require_training()
    from pyrf.training.recipe import load_recipe
    from pyrf.training.ship import evaluate as score
    from pyrf.video import check_output

    check_output(str(sheet))
    scores = score(model, load_recipe(recipe), prompts, seconds, sheet)
    if as_json:
        typer.echo(json.dumps(scores))
    else:
        typer.echo(f"{prompts} held-out prompts, {seconds:g} s streams, last 5 s judged; pictures in {sheet}")
        for name, value in scores.items():
            typer.echo(f"  {name:<16} {100 * value:5.1f} %")


def _require_training() -> None:
    """What training needs beyond inference is an extra."""
    from importlib.util import find_spec

    missing = [name for name in ("pydantic", "yaml") if find_spec(name) is None]
    if missing:
        raise ValueError(f"training needs {' and '.join(missing)}: pip install 'pyrf[train]'")


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; a user's error is one line on stderr, without a traceback."""
    try:
        code = app(arguments, prog_name="pyrf", standalone_mode=False)
    except UsageError as error:
        message = f"{error.format_message()} (see pyrf --help)"
    except (ValueError, OSError) as error:
        message = str(error)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        message = "out of memory; take a smaller --height and --width, or --dtype bfloat16"
    except KeyboardInterrupt:
        return INTERRUPTED
    else:
        return code if isinstance(code, int) else 0
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def main() -> None:
    """Entry point of the `pyrf` command."""
    # A plain `kill` must clean up as Ctrl-C does.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(run(sys.argv[1:]))
