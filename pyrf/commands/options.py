"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pyrf.backends.torch.parallel.torchrun import TORCHRUN, torchrun_ranks
from pyrf.moments import parse_time

DEFAULT_MODEL = "valley"
SMALL_MODEL = "tiny"
"""Of the shapes world, for what measures that world alone."""
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="A bundled model, a model directory, or a hub id.",
        metavar="NAME|DIR",
        envvar="PYRF_MODEL",
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="A bundled model, a model directory, or a hub id, and a name for it; may be repeated.",
        metavar="[NAME=]MODEL",
        envvar="PYRF_MODEL",
    ),
]
StudentOption = Annotated[
    str | None, typer.Option("--student", help="Student weights over the model's, a file or a hub id.")
]
LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        help="An adapter (LoRA) over the model's weights, and its strength, 1 by default; may be repeated.",
        metavar="[NAME=]FILE[:STRENGTH]",
    ),
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32 or bfloat16; for tensorrt also float16.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision", help="fp8-attention: self-attention and its cache in 8 bits; fp8: weights, too."
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...")]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="Who computes: torch, onnxruntime on a CPU, tensorrt on a GPU, or auto, the fastest.",
    ),
]
ExportedOption = Annotated[
    Path | None,
    typer.Option(
        "--exported",
        help="A folder that pyrf export wrote; by default made when first needed.",
        metavar="DIR",
    ),
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        "--gpus-per-stream",
        help="GPUs that share a stream's work, from --device on; with cpu, processes. By default 1, or as "
        "many as torchrun has started.",
    ),
]
DecoderRankOption = Annotated[
    int | None,
    typer.Option(
        "--decoder-rank",
        help="Which of the GPUs of a stream decodes, beside the network; by default the first, after it.",
    ),
]
HeightOption = Annotated[int | None, typer.Option(help="Of a frame, in pixels; by default the model's.")]
WidthOption = Annotated[int | None, typer.Option(help="Of a frame, in pixels; by default the model's.")]
StreamOption = Annotated[
    list[str] | None,
    typer.Option(
        "--stream",
        help="How it streams: a published student's name, a .yaml file, or KEY=VALUE; may be repeated.",
        metavar="NAME|FILE|KEY=VALUE",
    ),
]


def seconds_option(help: str) -> Any:
    """`--seconds`, which takes times as people type them."""
    return typer.Option("--seconds", help=help, parser=_seconds, metavar="TIME")


def _seconds(given: str | float) -> float:
    try:
        return parse_time(str(given))
    except ValueError as error:
        raise typer.BadParameter(_what_is_wrong(str(given)) or str(error)) from None


def _what_is_wrong(given: str) -> str:
    """Of a number that is no length, such as -1 and inf, it is not the form that is wrong."""
    try:
        number = float(given)
    except ValueError:
        return ""
    try:
        check_seconds(number)
    except ValueError as error:
        return str(error)
    return ""


ThreadsOption = Annotated[
    int | None, typer.Option(help="CPU threads; by default one per core that may be used.")
]

MAX_THREADS = 1024
MAX_SECONDS = 1_000_000
"""Of a video, 11 days."""


def check_named(option: str, path: str | Path) -> None:
    """Refuse "-" where a command writes a file or folder of its own: stdout would not hold it.

    Raises:
        ValueError: for "-" itself; "./-" is a name as others are.
    """
    if str(path) == "-":
        raise ValueError(f"{option} - is no name; this command writes to a place on disk, such as ./-")


def check_threads(threads: int | None) -> None:
    """Refuse a number of CPU threads that torch cannot start.

    Raises:
        ValueError: when it does not lie in 1..MAX_THREADS.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"--threads must lie in 1..{MAX_THREADS}, got {threads}")


def use_threads(threads: int | None) -> None:
    """Compute with this many CPU threads; None: with as many as fit. Before a model is loaded."""
    check_threads(threads)
    if threads is not None:
        from pyrf.threads import set_threads

        set_threads(threads)


def ranks_of_stream(gpus: int | None) -> int | Literal["torchrun"]:
    """What `--gpus-per-stream` means: where torchrun has started this process, those that it has started.

    Raises:
        ValueError: when both say how many.
    """
    if torchrun_ranks() is None:
        return 1 if gpus is None else gpus
    if gpus is not None:
        raise ValueError(
            "torchrun --nproc-per-node says how many GPUs share a stream; leave out --gpus-per-stream"
        )
    return TORCHRUN


def check_seconds(seconds: float) -> None:
    """Refuse a length that no video has.

    Raises:
        ValueError: when it does not lie in 0..MAX_SECONDS, or is 0.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"--seconds must be a positive number up to {MAX_SECONDS}, got {seconds:g}")
