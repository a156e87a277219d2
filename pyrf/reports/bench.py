"""`pyrf bench`: how fast a model streams here, with the method beside the figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from pyrf.dtypes import name_of
from pyrf.machine import peak_rss_mib, percentile, processor
from pyrf.printing import counted

if TYPE_CHECKING:
    from pyrf.pipeline import StreamingPipeline, Timing

PROMPT = "a red circle moves right"


@dataclass(frozen=True)
class Method:
    """What was timed, and how."""

    model: str
    student: str | None
    device: str
    backend: str
    gpus_per_stream: int
    decoder_rank: int | None
    exported: str | None
    dtype: str
    precision: str | None
    threads: int
    torch: str
    native: str
    frame_size: str
    fps: float
    chunk_frames: int
    window_frames: int
    network_calls_per_chunk: int
    sampler: str
    preset: str | None
    codec: str
    warm_up_chunks: int
    chunks: int
    repeats: int


@dataclass(frozen=True)
class Result:
    """Figures of a run. Rates and times are medians over the repeats, percentiles are over all chunks.

    Attributes:
        end_to_end_fps: frames over the seconds from asking for a stream to its last frame as uint8 on the
            host: prompt encoding, network calls, decoding.
        denoise_fps: frames over the seconds of the network calls alone, clean calls included; None where
            they run beside the decoder.
        first_frame_ms: from asking for a stream to its first chunk of frames.
        chunk_p50_ms, chunk_p99_ms: a whole chunk, the first of each stream left out.
        peak_rss_mib: of the process, loading included.
        peak_cuda_mib: allocated by torch; None on a CPU.
    """

    method: Method
    load_s: float
    end_to_end_fps: float
    denoise_fps: float | None
    first_frame_ms: float
    chunk_p50_ms: float
    chunk_p99_ms: float
    peak_rss_mib: float
    peak_cuda_mib: float | None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def check_counts(*, chunks: int | None, repeats: int, warm_up: int) -> None:
    """Refuse counts too small to give figures; no number of chunks is one to be chosen later.

    Raises:
        ValueError: which one, and its least value.
    """
    for name, value, least in (("chunks", chunks, 2), ("repeats", repeats, 1), ("warm-up", warm_up, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


class Loaded(NamedTuple):
    """A pipeline, and the seconds that loading it took."""

    pipe: StreamingPipeline
    load_s: float


class _Figures:
    """Of the timed streams of one pipeline."""

    def __init__(self) -> None:
        self._end_to_end: list[float] = []
        self._denoise: list[float] = []
        self._first: list[float] = []
        self._later: list[float] = []

    def add(self, frames: int, seconds: float, first_s: float, timings: list[Timing]) -> None:
        """What `_time_stream` found."""
        self._end_to_end.append(frames / seconds)
        calls = [t.denoise + t.clean for t in timings if t.denoise is not None and t.clean is not None]
        if calls:
            self._denoise.append(frames / sum(calls))
        self._first.append(first_s)
        self._later += [timing.total for timing in timings[1:]]

    def result(self, method: Method, loaded: Loaded) -> Result:
        return Result(
            method=method,
            load_s=loaded.load_s,
            end_to_end_fps=statistics.median(self._end_to_end),
            denoise_fps=statistics.median(self._denoise) if self._denoise else None,
            first_frame_ms=1e3 * statistics.median(self._first),
            chunk_p50_ms=1e3 * statistics.median(self._later),
            chunk_p99_ms=1e3 * percentile(self._later, 99),
            peak_rss_mib=peak_rss_mib(),
            peak_cuda_mib=_peak_cuda_mib(loaded.pipe),
        )


def run_in_turns(
    peers: Mapping[str, Loaded],
    model: str,
    *,
    chunks: int,
    repeats: int,
    warm_up: int,
    student: str | None = None,
    exported: str | None = None,
) -> dict[str, Result]:
    """Time `repeats` streams of `chunks` chunks of each pipeline of one model, after a stream to warm up.

    Their streams take turns, so that clocks and heat are the same for all. Peaks of memory are those of the
    process, which holds them all.

    Args:
        peers: by any names.
        model, student, exported: what they were loaded from, for the method.

    Raises:
        ValueError: when a count is too small to give figures.
    """
    check_counts(chunks=chunks, repeats=repeats, warm_up=warm_up)
    figures = {name: _Figures() for name in peers}
    for turn in range(repeats + 1):
        for name, (pipe, _) in peers.items():
            if turn:
                figures[name].add(*_time_stream(pipe, chunks))
            elif warm_up:
                _time_stream(pipe, warm_up)
    counts = {"chunks": chunks, "repeats": repeats, "warm_up": warm_up}
    return {
        name: figures[name].result(_method(loaded.pipe, model, student, exported, **counts), loaded)
        for name, loaded in peers.items()
    }


def largest_difference(peers: Mapping[str, Loaded], chunks: int = 4) -> int:
    """Of any value of a pixel between the first of several pipelines and another, in levels of 0..255."""
    videos = []
    for pipe, _ in peers.values():
        with pipe.stream(PROMPT, seed=0) as stream:
            videos.append([next(stream).frames.astype(int) for _ in range(chunks)])
    first, *others = videos
    return max(int(abs(a - b).max()) for other in others for a, b in zip(first, other))


def _time_stream(pipe: StreamingPipeline, chunks: int) -> tuple[int, float, float, list[Timing]]:
    """Frames made, seconds until the last and until the first chunk of them, and the chunks' timings."""
    start = time.perf_counter()
    first_s, frames, timings = 0.0, 0, []
    with pipe.stream(PROMPT, seed=0) as stream:
        for _ in range(chunks):
            chunk = next(stream)
            first_s = first_s or time.perf_counter() - start
            frames += len(chunk.frames)
            timings.append(chunk.timing)
        seconds = time.perf_counter() - start
    return frames, seconds, first_s, timings


def _method(
    pipe: StreamingPipeline,
    model: str,
    student: str | None,
    exported: str | None,
    *,
    chunks: int,
    repeats: int,
    warm_up: int,
) -> Method:
    import torch

    from pyrf.ops import native

    cuda = pipe.device.type == "cuda"
    return Method(
        model=model,
        student=student,
        device=torch.cuda.get_device_name(pipe.device) if cuda else f"cpu, {processor()}",
        backend=pipe.backend,
        gpus_per_stream=1 if pipe.plan is None else pipe.plan.ranks,
        decoder_rank=None if pipe.plan is None else pipe.plan.decoder_rank,
        exported=exported,
        dtype=name_of(pipe.dtype),
        precision=pipe.precision,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        native=native.missing or "used",
        frame_size=f"{pipe.height} x {pipe.width}",
        fps=pipe.fps,
        chunk_frames=pipe.stream_config.chunk_frames,
        window_frames=pipe.stream_config.window_frames,
        network_calls_per_chunk=len(pipe.stream_config.denoising_steps) + 1,
        sampler=pipe.stream_config.sampler,
        preset=pipe.choice.preset,
        codec=type(pipe.codec).__name__,
        warm_up_chunks=warm_up,
        chunks=chunks,
        repeats=repeats,
    )


def _peak_cuda_mib(pipe: StreamingPipeline) -> float | None:
    import torch

    return torch.cuda.max_memory_allocated(pipe.device) / 2**20 if pipe.device.type == "cuda" else None


def _split(method: Method) -> list[str]:
    """What is said of a stream that several ranks share; of them only the first one's memory is measured."""
    if method.gpus_per_stream == 1:
        return []
    decoder = "no rank" if method.decoder_rank is None else f"rank {method.decoder_rank}"
    return [f"split over {method.gpus_per_stream} ranks, decoder on {decoder}; peaks are of this process"]


def table(result: Result) -> str:
    """The result as lines of text, the method first."""
    m = result.method
    student = "" if m.student is None else f" with student {m.student}"
    student += "" if m.preset is None else f" as {m.preset}"
    exported = "" if m.exported is None else f" on {m.exported}"
    dtype = m.dtype if m.precision is None else f"{m.dtype} with {m.precision}"
    lines = [
        f"model {m.model}{student}, {dtype}, {m.frame_size} at {m.fps:g} fps, codec {m.codec}",
        f"device {m.device}; {m.threads} threads, torch {m.torch}, backend {m.backend}{exported}",
        f"native module {m.native}",
        *_split(m),
        f"chunk {m.chunk_frames} latent frames, window {m.window_frames}, "
        f"{m.network_calls_per_chunk} network calls per chunk, {m.sampler}, batch 1",
        f"warm-up {counted(m.warm_up_chunks, 'chunk')}, then {counted(m.repeats, 'stream')} of "
        f"{counted(m.chunks, 'chunk')}; medians",
        "",
        f"end to end     {result.end_to_end_fps:9.1f} FPS  prompt, network, decoding, frames on the host",
    ]
    if result.denoise_fps is not None:
        lines.append(
            f"denoise only   {result.denoise_fps:9.1f} FPS  network calls alone, clean calls included"
        )
    lines += [
        f"first frame    {result.first_frame_ms:9.1f} ms   after load",
        f"chunk p50      {result.chunk_p50_ms:9.1f} ms   all but the first of each stream",
        f"chunk p99      {result.chunk_p99_ms:9.1f} ms",
        f"load           {result.load_s:9.2f} s",
        f"peak RSS       {result.peak_rss_mib:9.0f} MiB",
    ]
    if result.peak_cuda_mib is not None:
        lines.append(f"peak CUDA      {result.peak_cuda_mib:9.0f} MiB")
    return "\n".join(lines)


def comparison(results: Mapping[str, Result], difference: int, auto: str) -> str:
    """Several backends as lines of text, the method first.

    Args:
        difference: of `largest_difference`.
        auto: the backend that `auto` takes here.
    """
    first = next(iter(results.values()))
    head, _, _ = table(first).partition("\n\n")
    lines = [
        *(line for line in head.splitlines()),
        f"{len(results)} backends in turns; their frames differ by {difference} of 255 at most",
        "",
        f"{'backend':14}{'FPS':>8}{'denoise':>10}{'first, ms':>11}"
        f"{'p50, ms':>10}{'p99, ms':>10}{'load, s':>10}",
    ]
    for name, r in results.items():
        denoise = "" if r.denoise_fps is None else f"{r.denoise_fps:.1f}"
        lines.append(
            f"{name:14}{r.end_to_end_fps:8.1f}{denoise:>10}{r.first_frame_ms:11.1f}{r.chunk_p50_ms:10.1f}"
            f"{r.chunk_p99_ms:10.1f}{r.load_s:10.2f}"
        )
    return "\n".join([*lines, f"--backend auto takes {auto} here"])
