"""What it saves to compute several streams in one call.

    python benchmarks/lockstep.py --threads 1

Streams of one pipeline, past their warm-up, make chunks by `next_chunks`, in turns with streams of the other
counts. The figure is the median of process CPU time (all threads) and of wall time, per stream and chunk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from pyrf import StreamingPipeline
from pyrf.machine import processor
from pyrf.reports.bench import PROMPT
from pyrf.streaming.lockstep import next_chunks

WARM_UP = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--counts", type=int, nargs="+", default=(1, 2, 4, 8))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe = StreamingPipeline.from_pretrained(arguments.model)
    groups = {count: [pipe.stream(PROMPT, seed=seed) for seed in range(count)] for count in arguments.counts}
    times: dict[int, list[tuple[float, float]]] = {count: [] for count in groups}
    for turn in range(WARM_UP + arguments.repeats):
        for count, streams in groups.items():
            cpu, wall = time.process_time(), time.perf_counter()
            next_chunks(streams)
            if turn >= WARM_UP:
                spent = time.process_time() - cpu, time.perf_counter() - wall
                times[count].append((1e3 * spent[0] / count, 1e3 * spent[1] / count))
    result = []
    print(f"{'streams':>8}{'CPU ms':>10}{'wall ms':>10}   per stream and chunk")
    for count, pairs in times.items():
        cpu_ms, wall_ms = (statistics.median(values) for values in zip(*pairs))
        result.append({"streams": count, "cpu_ms": cpu_ms, "wall_ms": wall_ms})
        print(f"{count:8}{cpu_ms:10.1f}{wall_ms:10.1f}")
    method = {**vars(arguments), "processor": processor(), "torch": torch.__version__}
    print(json.dumps({"method": method, "result": result}))


if __name__ == "__main__":
    main()
