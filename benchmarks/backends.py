"""Time the backends on a CPU, in turns: torch as it is (eager) and ONNX Runtime on exported graphs.

The bundled model, end to end through the public API; `reference_loop.py` times the network calls of a larger
network. Each backend makes the same chunk from the same noise; their results are compared before they are
timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import onnxruntime
import torch

from pyrf.machine import processor
from pyrf.pipeline import StreamingPipeline

PROMPT = "a red circle moves right"
Times = dict[str, list[float]]


def time_in_turns(peers: dict[str, Callable[[], object]], repeats: int) -> Times:
    """Milliseconds of each call of each peer."""
    times: Times = {name: [] for name in peers}
    for _ in range(repeats):
        for name, call in peers.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def tiny_chunks(repeats: int) -> tuple[Times, float, int]:
    """Chunks of the bundled model, prompt to frames; the largest difference of a pixel; frames per chunk."""
    pipes = {
        name: StreamingPipeline.from_pretrained("tiny", backend=name) for name in ("torch", "onnxruntime")
    }
    streams = {name: pipe.stream(PROMPT, seed=0) for name, pipe in pipes.items()}
    difference = 0
    for _ in range(pipes["torch"].stream_config.slots + 2):  # past the first eviction
        one, other = (next(stream).frames.astype(int) for stream in streams.values())
        difference = max(difference, int(abs(one - other).max()))
    times = time_in_turns({name: stream.__next__ for name, stream in streams.items()}, repeats)
    return times, difference, one.shape[0]


def show(title: str, times: Times) -> dict[str, float]:
    """Print a table; returns the medians."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(title)
    print(f"{'':14}{'median ms':>10}{'min':>9}{'max':>9}{'torch / it':>12}")
    for name, values in times.items():
        ratio = medians["torch"] / medians[name]
        print(f"{name:14}{medians[name]:10.1f}{min(values):9.1f}{max(values):9.1f}{ratio:12.2f}")
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20, help="timed chunks of each")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    method = f"fp32, {arguments.threads} threads, {arguments.repeats} chunks each, in turns"

    tiny, pixel, frames = tiny_chunks(arguments.repeats)
    if pixel > 1:
        raise SystemExit(f"the backends' frames differ by {pixel} levels: their times cannot be compared")
    tiny_medians = show(f"bundled model, a chunk of {frames} frames end to end, {method}", tiny)
    result = {
        **vars(arguments),
        "processor": processor(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "tiny_median_ms": tiny_medians,
        "pixel_max_difference": pixel,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
