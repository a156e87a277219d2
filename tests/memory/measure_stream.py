"""Streams a bundle in a process of its own; prints its estimate beside the measured peaks, as JSON.

    python -m tests.memory.measure_stream BUNDLE [--backend onnxruntime --exported DIR] [--precision NAME]
        [--keep]

On a GPU the peak is what torch allocated; else it is resident memory, while loading and while streaming.
"""

import argparse
import json
from pathlib import Path

import torch

from pyrf.bundle import load_bundle
from pyrf.memory.choice import choose_setup
from pyrf.memory.setup import Setup
from pyrf.pipeline import StreamingPipeline


def reset_peak() -> None:
    """Begin to measure anew: Linux then knows the peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_rss() -> int:
    """Bytes since `reset_peak`, or since the process began; getrusage may tell those of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--exported", help="a folder of graphs; to export takes memory, too")
    parser.add_argument("--precision")
    parser.add_argument("--keep", action="store_true", help="without a limit: allocators keep what is freed")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() and given.backend == "torch" else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    # A limit, even a vast one, makes memory be given back at once.
    limit = None if given.keep else "1000GiB"
    bundle = load_bundle(given.bundle)
    asked = Setup(
        dtype,
        device,
        bundle.stream_config,
        precision=given.precision,
        backend=given.backend,
        exported=given.exported,
    )
    bill = choose_setup(bundle, asked, limit, always=True).bill
    assert bill is not None
    pipe = StreamingPipeline.from_pretrained(
        given.bundle,
        dtype=dtype,
        device=device,
        backend=given.backend,
        exported=given.exported,
        precision=given.precision,
        max_memory=limit,
    )
    found = {"peak": bill.peak, "loading": bill.loading, "measured_loading": peak_rss()}
    if device.type == "cpu":
        reset_peak()
    with pipe.stream("a red circle") as stream:
        for _ in range(bundle.stream_config.slots + 2):  # each length of the cache, and all a second time
            next(stream)
    found["measured"] = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_rss()
    print(json.dumps({**found, "bill": bill.to_dict()}))


if __name__ == "__main__":
    main()
