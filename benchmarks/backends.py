"""Time the backends on a CPU, in turns: torch as it is (eager) and ONNX Runtime on exported graphs.

Two models: the bundled one, end to end through the public API, and the 36 M network of reference_loop.py,
network calls alone. Each backend makes the same chunk from the same noise; their results are compared
before they are timed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from reference_loop import CHANNELS, HEIGHT, MODEL, STREAM, WIDTH, processor
from torch import Tensor

from pyrf.backends.base import StreamBackend
from pyrf.backends.graphs import GraphSet
from pyrf.backends.onnxruntime import OnnxRuntimeBackend
from pyrf.backends.torch import TorchBackend
from pyrf.export.exporter import FolderWriter
from pyrf.export.student import student_graphs
from pyrf.models.dit import WanModel
from pyrf.pipeline import StreamingPipeline
from pyrf.sampler import ChunkLoop

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
    """Chunks of the bundled model, prompt to frames; the largest difference of a pixel; frames a chunk."""
    pipes = {
        name: StreamingPipeline.from_pretrained("tiny", backend=name) for name in ("torch", "onnxruntime")
    }
    streams = {name: pipe.stream(PROMPT, seed=0) for name, pipe in pipes.items()}
    difference = 0
    for _ in range(STREAM.slots + 2):
        one, other = (next(stream).frames.astype(int) for stream in streams.values())
        difference = max(difference, int(abs(one - other).max()))
    times = time_in_turns({name: stream.__next__ for name, stream in streams.items()}, repeats)
    return times, difference, one.shape[0]


def large_chunks(repeats: int, threads: int) -> tuple[Times, float]:
    """Chunks of the 36 M network, four denoise calls and the clean call; largest difference of latents."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from reference.loop import random_weights

    model = WanModel(MODEL).eval().requires_grad_(False)
    model.load_state_dict(
        random_weights({k: v.shape for k, v in model.state_dict().items()}, 0, torch.float32)
    )
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(1, MODEL.text_len, MODEL.text_dim, generator=generator)
    shape = (1, STREAM.chunk_frames, CHANNELS, HEIGHT, WIDTH)
    noise = [torch.randn(shape, generator=generator) for _ in STREAM.denoising_steps]

    def loop(backend: StreamBackend) -> Callable[[], Tensor]:
        backend.start(1, HEIGHT, WIDTH)
        backend.set_prompt(prompt)
        drawn = itertools.cycle(noise)
        return ChunkLoop(backend, STREAM, lambda: next(drawn)).next_chunk

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "export"
        with FolderWriter(folder) as writer:
            writer.add(student_graphs(model, STREAM, HEIGHT, WIDTH), "student.weights")
            manifest = writer.finish(
                dtype="float32",
                fp8=False,
                model=MODEL,
                stream=STREAM,
                height=HEIGHT,
                width=WIDTH,
                weights="random",
            )
        peers = {
            "torch": loop(TorchBackend(model, STREAM)),
            "onnxruntime": loop(OnnxRuntimeBackend(GraphSet(folder, manifest, threads))),
        }
        difference = 0.0
        for _ in range(STREAM.slots + 2):
            one, other = (chunk() for chunk in peers.values())
            difference = max(difference, (one - other).abs().max().item())
        return time_in_turns(peers, repeats), difference


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
    large, error = large_chunks(arguments.repeats, arguments.threads)
    if error > 1e-3:
        raise SystemExit(f"the backends' latents differ by {error:.1e}: their times cannot be compared")
    large_medians = show(f"36 M network of reference_loop.py, network calls of a chunk, {method}", large)
    result = {
        **vars(arguments),
        "processor": processor(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "tiny_median_ms": tiny_medians,
        "large_median_ms": large_medians,
        "latents_max_difference": error,
        "pixel_max_difference": pixel,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
