"""`pyrf bench`: time a model, and say how."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyrf import printing
from pyrf.bundle.stream_choice import stream_choice
from pyrf.commands.loading import MaxMemoryOption, load_pipeline
from pyrf.commands.options import (
    DEFAULT_MODEL,
    BackendOption,
    DecoderRankOption,
    DeviceOption,
    DtypeOption,
    ExportedOption,
    GpusOption,
    ModelOption,
    PrecisionOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
    check_seconds,
    check_threads,
    ranks_of_stream,
    seconds_option,
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
    precision: PrecisionOption = None,
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    exported: ExportedOption = None,
    gpus_per_stream: GpusOption = None,
    decoder_rank: DecoderRankOption = None,
    max_memory: MaxMemoryOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Time all backends that are installed, in turns.")
    ] = False,
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

    options = {"student": student, "dtype": dtype, "device": device, "stream": choice}
    if precision is not None:
        options["precision"] = precision
    ranks = ranks_of_stream(gpus_per_stream)

    def load(name: str, **more: Any) -> bench_module.Loaded:
        start = time.perf_counter()
        pipe = load_pipeline(model, threads=threads, backend=name, **options, **more)
        return bench_module.Loaded(pipe, time.perf_counter() - start)

    if compare:
        if backend != "torch" or (exported, max_memory, precision, ranks) != (None, None, None, 1):
            raise ValueError(
                "--compare takes each backend as it is; leave out --backend, --exported, --fit, "
                "--precision and GPUs"
            )
        from pyrf.backends.choice import check_dtype, fastest_backend, installed_backends
        from pyrf.bundle import load_bundle
        from pyrf.checks import check_device

        place = (check_dtype(dtype, "torch"), check_device(device))
        peers = {name: load(name) for name in installed_backends(*place)}
        auto = fastest_backend(load_bundle(model, student=student, stream=choice), *place)
    else:
        split = {"gpus_per_stream": ranks, "decoder_rank": decoder_rank}
        peers = {backend: load(backend, exported=exported, max_memory=max_memory, **split)}
    results = bench_module.run_in_turns(
        peers,
        model,
        chunks=_chunks_of(next(iter(peers.values())).pipe, seconds) if chunks is None else chunks,
        repeats=repeats,
        warm_up=warm_up,
        student=student,
        exported=None if exported is None else str(exported),
    )
    if not compare:
        result = results[backend]
        printing.deliver(json.dumps(result.to_dict()) if as_json else bench_module.table(result))
        return
    difference = bench_module.largest_difference(peers)
    if as_json:
        told = {name: result.to_dict() for name, result in results.items()}
        printing.deliver(json.dumps({"backends": told, "largest_difference": difference, "auto": auto}))
    else:
        printing.deliver(bench_module.comparison(results, difference, auto))


def _chunks_of(pipe: StreamingPipeline, seconds: float | None) -> int:
    """Chunks of a stream of this length, by default of 5 seconds; at least the 2 that give figures."""
    if seconds is None:
        return max(2, pipe.num_chunks_of(math.ceil(5 * pipe.fps)))
    chunks = pipe.num_chunks_of(math.ceil(seconds * pipe.fps))
    if chunks < 2:
        first = printing.counted(pipe.num_frames_of(1) / pipe.fps, "second")
        raise ValueError(f"--seconds must reach beyond the first chunk, which lasts {first}, got {seconds:g}")
    return chunks
