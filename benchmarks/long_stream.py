"""Does a long stream stay as fast and as small as it began?

    python benchmarks/long_stream.py --threads 2

Streams `--chunks` chunks and compares the median chunk time of the last 100 with that of chunks 10..109,
and the resident memory at the end with that after chunk 109. Frames are dropped as they come.
"""

from __future__ import annotations

import argparse
import json
import statistics

import psutil
import torch

from pyrf import StreamingPipeline
from pyrf.bench import PROMPT, processor

WARM_UP, SPAN = 10, 100
LEAST_CHUNKS = WARM_UP + SPAN + 1


def measure(pipe: StreamingPipeline, chunks: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each chunk, and MiB resident after it."""
    process = psutil.Process()
    times, memory = [], []
    with pipe.stream(PROMPT, seed=0) as stream:
        for _ in range(chunks):
            times.append(1e3 * next(stream).timing.total)
            memory.append(process.memory_info().rss / 2**20)
    return times, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--chunks", type=int, default=2000, help=f"at least {LEAST_CHUNKS}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.chunks < LEAST_CHUNKS:
        parser.error(f"--chunks must be at least {LEAST_CHUNKS}, got {arguments.chunks}")
    torch.set_num_threads(arguments.threads)
    pipe = StreamingPipeline.from_pretrained(arguments.model, dtype=arguments.dtype, device=arguments.device)

    times, memory = measure(pipe, arguments.chunks)
    early_ms, late_ms = statistics.median(times[WARM_UP : WARM_UP + SPAN]), statistics.median(times[-SPAN:])
    early_mib, late_mib = memory[WARM_UP + SPAN - 1], memory[-1]
    result = {
        **vars(arguments),
        "processor": processor(),
        "torch": torch.__version__,
        "frames": pipe.num_frames_of(arguments.chunks),
        "early_chunk_ms": early_ms,
        "late_chunk_ms": late_ms,
        "chunk_change_percent": 100 * (late_ms / early_ms - 1),
        "early_rss_mib": early_mib,
        "late_rss_mib": late_mib,
        "rss_change_percent": 100 * (late_mib / early_mib - 1),
    }
    print(f"{'':14}{'chunks 10..109':>16}{'last 100':>12}{'change':>10}")
    print(f"{'chunk, ms':14}{early_ms:16.2f}{late_ms:12.2f}{result['chunk_change_percent']:+9.2f}%")
    print(f"{'RSS, MiB':14}{early_mib:16.1f}{late_mib:12.1f}{result['rss_change_percent']:+9.2f}%")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
