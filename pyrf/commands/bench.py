"""`pyrf bench`: time a model, and say how."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DeviceOption,
    DtypeOption,
    ExportedOption,
    ModelOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
    check_seconds,
    check_threads,
    seconds_option,
    use_threads,
)
from pyrf.config import StreamConfig

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline


def bench(
    model: ModelOption = DEFAULT_MODEL,
    student: StudentOption = None,
    stream: StreamOption = None,
    chunks: Annotated[
        int | None, typer.Option(help="Chunks per stream; by default 5 seconds of them.")
    ] = None,
    seconds: Annotated[
        float | None, seconds_option("Length of a stream, instead of --chunks: seconds, or [hh:]mm:ss.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed streams.")] = 5,
    warm_up: Annotated[int, typer.Option(help="Chunks of an untimed stream before them.")] = 4,
    threads: ThreadsOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    exported: ExportedOption = None,
    roofline: Annotated[
        bool,
        typer.Option("--roofline", help="Time nothing: the least that an H100 needs for Wan's models."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time a model here, and say how it was timed."""
    choice = stream_choice(stream or ())
    if roofline:
        from pyrf.reports import roofline_table

        floors = roofline_table.report(stream=choice.applied(StreamConfig()))
        if as_json:
            printing.deliver(json.dumps(floors.to_dict()))
        else:
            roofline_table.show(floors)
        return
    if chunks is not None and seconds is not None:
        raise ValueError("give --chunks or --seconds, not both")
    if seconds is not None:
        check_seconds(seconds)
    check_threads(threads)
    from pyrf.reports import bench as bench_module

    bench_module.check_counts(chunks=chunks, repeats=repeats, warm_up=warm_up)
    start = time.perf_counter()
    from pyrf.pipeline import StreamingPipeline

    use_threads(threads)
    pipe = StreamingPipeline.from_pretrained(
        model,
        student=student,
        backend=backend,
        dtype=dtype,
        device=device,
        stream=choice,
        exported=exported,
    )
    load_s = time.perf_counter() - start
    if chunks is None:
        chunks = _chunks_of(pipe, seconds)
    result = bench_module.run(
        pipe,
        model,
        load_s=load_s,
        chunks=chunks,
        repeats=repeats,
        warm_up=warm_up,
        student=student,
        exported=None if exported is None else str(exported),
    )
    printing.deliver(json.dumps(result.to_dict()) if as_json else bench_module.table(result))


def _chunks_of(pipe: StreamingPipeline, seconds: float | None) -> int:
    """Chunks of a stream of this length, by default of 5 seconds; at least the 2 that give figures."""
    if seconds is None:
        return max(2, pipe.num_chunks_of(math.ceil(5 * pipe.fps)))
    chunks = pipe.num_chunks_of(math.ceil(seconds * pipe.fps))
    if chunks < 2:
        first = printing.counted(pipe.num_frames_of(1) / pipe.fps, "second")
        raise ValueError(f"--seconds must reach beyond the first chunk, which lasts {first}, got {seconds:g}")
    return chunks
