"""Streams a bundle in a process of its own; prints its estimate beside the measured peaks, as JSON.

    python -m tests.memory.measure_stream BUNDLE

On a GPU the peak is what torch allocated; else it is resident memory, while loading and while streaming.
"""

import json
import sys
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


def main(path: str) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    bundle = load_bundle(path)
    # A limit, even a vast one, makes memory be given back at once.
    bill = choose_setup(bundle, Setup(dtype, device, bundle.stream_config), "1000GiB").bill
    assert bill is not None
    pipe = StreamingPipeline.from_pretrained(path, dtype=dtype, device=device)
    found = {"peak": bill.peak, "loading": bill.loading, "measured_loading": peak_rss()}
    if device.type == "cpu":
        reset_peak()
    with pipe.stream("a red circle") as stream:
        for _ in range(2):
            next(stream)
    found["measured"] = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_rss()
    print(json.dumps({**found, "bill": bill.to_dict()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
