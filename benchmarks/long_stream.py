"""Does a long stream stay as fast and as small as it began?

    python benchmarks/long_stream.py --threads 2

Streams `--chunks` chunks and compares the median time of the last 100 with that of chunks 10..109: as it was
then, and as it is in a new stream that takes turns with the last 100, for a machine's clock moves in between.
Resident memory over the 100 chunks before the new stream begins is compared with chunks 10..109, medians too,
for the allocator gives and takes a few MiB all the time. Frames are dropped.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import NamedTuple

import psutil
import torch

from pyrf import Stream, StreamingPipeline
from pyrf.machine import processor
from pyrf.reports.bench import PROMPT

WARM_UP, SPAN = 10, 100


class Measured(NamedTuple):
    """Milliseconds of `SPAN` chunks, and MiB resident after each of `SPAN` chunks."""

    early_ms: list[float]
    early_mib: list[float]
    late_ms: list[float]
    late_mib: list[float]
    fresh_ms: list[float]


def measure(pipe: StreamingPipeline, chunks: int) -> Measured:
    """Stream chunks, the last of them in turns with those of a new stream."""
    process = psutil.Process()

    def run(stream: Stream, count: int) -> tuple[list[float], list[float]]:
        times, memory = [], []
        for _ in range(count):
            times.append(1e3 * next(stream).timing.total)
            memory.append(process.memory_info().rss / 2**20)
        return times, memory

    with pipe.stream(PROMPT, seed=0) as stream:
        run(stream, WARM_UP)
        early_ms, early_mib = run(stream, SPAN)
        run(stream, chunks - WARM_UP - 3 * SPAN)
        _, late_mib = run(stream, SPAN)
        late_ms, fresh_ms = [], []
        with pipe.stream(PROMPT, seed=0) as new:
            run(new, WARM_UP)
            for _ in range(SPAN):
                late_ms += run(stream, 1)[0]
                fresh_ms += run(new, 1)[0]
    return Measured(early_ms, early_mib, late_ms, late_mib, fresh_ms)


def main() -> None:
    least = WARM_UP + 3 * SPAN
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--chunks", type=int, default=2000, help=f"at least {least}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.chunks < least:
        parser.error(f"--chunks must be at least {least}, got {arguments.chunks}")
    torch.set_num_threads(arguments.threads)
    pipe = StreamingPipeline.from_pretrained(arguments.model, dtype=arguments.dtype, device=arguments.device)

    found = measure(pipe, arguments.chunks)
    early_ms, early_mib, late_ms, late_mib, fresh_ms = map(statistics.median, found)
    result = {
        **vars(arguments),
        "processor": processor(),
        "torch": torch.__version__,
        "frames": pipe.num_frames_of(arguments.chunks),
        "early_chunk_ms": early_ms,
        "late_chunk_ms": late_ms,
        "fresh_chunk_ms": fresh_ms,
        "chunk_change_percent": 100 * (late_ms / early_ms - 1),
        "chunk_change_in_turns_percent": 100 * (late_ms / fresh_ms - 1),
        "early_rss_mib": early_mib,
        "late_rss_mib": late_mib,
        "rss_change_percent": 100 * (late_mib / early_mib - 1),
    }
    rows = (
        ("chunk then, ms", early_ms, late_ms, result["chunk_change_percent"]),
        ("in turns, ms", fresh_ms, late_ms, result["chunk_change_in_turns_percent"]),
        ("RSS, MiB", early_mib, late_mib, result["rss_change_percent"]),
    )
    print(f"{'':16}{'chunks 10..109':>16}{'last 100':>12}{'change':>10}")
    for name, early, late, change in rows:
        print(f"{name:16}{early:16.2f}{late:12.2f}{change:+9.2f}%")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
