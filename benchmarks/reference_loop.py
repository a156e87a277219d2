"""The streaming loop against its literal reference, and against nothing but its matrix products.

    python benchmarks/reference_loop.py --threads 2

Times steady chunks (full window) of one 36 M model in one process, taking turns:
  torch        ChunkLoop on TorchRollout, the linears packed as the torch backend packs them
  onnxruntime  ChunkLoop on OnnxRuntimeRollout, which packs weights and fuses on its own
  reference    tests/reference: un-rotated keys, rolled, cloned and rotated anew in every layer of every call
  bare         the linears and attentions of our calls alone, with torch, on tensors of the same shapes
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

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.backends.base import Rollout
from pyrf.backends.onnxruntime.rollout import OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import PATCH, LatentSize, ModelConfig, StreamConfig
from pyrf.export.exporter import export_student
from pyrf.loop.sampler import ChunkLoop
from pyrf.machine import processor
from pyrf.models.dit.layers import Block
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.packed_linear import pack_linears

MODEL = ModelConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=8, text_len=64, text_dim=128)
STREAM = StreamConfig()
CHANNELS, HEIGHT, WIDTH = 16, 16, 28


class BareChunk:
    """The linears and attentions of one steady chunk, without anything between them."""

    def __init__(self, model: WanModel, stream: StreamConfig, height: int, width: int) -> None:
        config = model.config
        frame = height // PATCH[1] * (width // PATCH[2])
        tokens = stream.chunk_frames * frame
        self.model = model
        self.calls = len(stream.denoising_steps)
        self.x = torch.randn(1, tokens, config.dim)
        self.hidden = torch.randn(1, tokens, config.ffn_dim)
        self.patches = torch.randn(1, tokens, CHANNELS * PATCH[1] * PATCH[2])
        self.q, self.k, self.text = (
            torch.randn(1, config.num_heads, length, config.head_dim)
            for length in (tokens, stream.window_frames * frame, config.text_len)
        )

    def __call__(self) -> None:
        for _ in range(self.calls):
            self._enter()
            for block in self.model.blocks:
                self._block(block)
            self.model.head.head(self.x)
        self._enter()  # the clean call, which stops at the last layer's keys and values
        for block in self.model.blocks[:-1]:
            self._block(block)
        last = self.model.blocks[-1].self_attn
        last.k(self.x), last.v(self.x)

    def _enter(self) -> None:
        weight = self.model.patch_embedding.weight.flatten(1)
        F.linear(self.patches, weight, self.model.patch_embedding.bias)

    def _block(self, block: Block) -> None:
        for linear in (block.self_attn.q, block.self_attn.k, block.self_attn.v, block.self_attn.o):
            linear(self.x)
        F.scaled_dot_product_attention(self.q, self.k, self.k)
        for linear in (block.cross_attn.q, block.cross_attn.o):
            linear(self.x)
        F.scaled_dot_product_attention(self.q, self.text, self.text)
        block.ffn[0](self.x)
        block.ffn[2](self.hidden)


def exported(model: WanModel, folder: Path, threads: int, prompt: Tensor) -> OnnxRuntimeRollout:
    """A stream of the model's graphs, loaded by ONNX Runtime."""
    size = LatentSize(HEIGHT, WIDTH)
    manifest = export_student(model, STREAM, folder, size)
    return OnnxRuntimeRollout(GraphSet(folder, manifest, threads), 1, size, prompt)


def build(folder: Path, threads: int, seed: int = 0) -> tuple[dict[str, Callable[[], Tensor]], BareChunk]:
    """Each loop's next chunk, on the same weights, prompt and noise, and the bare one."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.reference.loop import ReferenceLoop, random_weights

    model, packed = (WanModel(MODEL).eval().requires_grad_(False) for _ in range(2))
    weights = random_weights({k: v.shape for k, v in model.state_dict().items()}, seed, torch.float32)
    for each in (model, packed):
        each.load_state_dict(weights)
    pack_linears(packed)
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randn(1, MODEL.text_len, MODEL.text_dim, generator=generator)
    shape = (1, STREAM.chunk_frames, CHANNELS, HEIGHT, WIDTH)
    noise = [torch.randn(shape, generator=generator) for _ in STREAM.denoising_steps]

    def loop(rollout: Rollout) -> Callable[[], Tensor]:
        drawn = itertools.cycle(noise)
        return ChunkLoop(rollout, STREAM, lambda: next(drawn)).next_chunk

    reference = ReferenceLoop(weights, MODEL, STREAM, prompt, HEIGHT, WIDTH)
    loops = {
        "torch": loop(TorchRollout(packed, STREAM, 1, LatentSize(HEIGHT, WIDTH), prompt)),
        "onnxruntime": loop(exported(model, folder / "export", threads, prompt)),
        "reference": lambda: reference.next_chunk(noise[0], noise[1:]),
    }
    return loops, BareChunk(model, STREAM, HEIGHT, WIDTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20, help="timed chunks of each")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    with tempfile.TemporaryDirectory() as folder:
        loops, bare = build(Path(folder), arguments.threads)
        with torch.inference_mode():
            report(arguments, loops, bare)


def report(arguments: argparse.Namespace, loops: dict[str, Callable[[], Tensor]], bare: BareChunk) -> None:
    """Compare the loops' results, time them in turns, print a table and one JSON object."""
    error = 0.0
    for _ in range(STREAM.slots + 2):  # past the first eviction
        ours, other, expected = (chunk() for chunk in loops.values())
        error = max((x - expected).abs().max().item() for x in (ours, other))
        bare()
    if error > 1e-3:
        raise SystemExit(f"the loops differ by {error:.1e}: their times cannot be compared")
    peers: dict[str, Callable[[], object]] = {**loops, "bare": bare}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(arguments.repeats):
        for name, chunk in peers.items():
            start = time.perf_counter()
            chunk()
            times[name].append(1e3 * (time.perf_counter() - start))

    medians = {name: statistics.median(values) for name, values in times.items()}
    parameters = sum(p.numel() for p in bare.model.parameters())
    print(
        f"{parameters / 1e6:.1f} M parameters, fp32, latents {CHANNELS} x {HEIGHT} x {WIDTH}, window "
        f"{STREAM.window_frames}, {arguments.threads} threads, {arguments.repeats} chunks each, in turns"
    )
    print(f"{'':12}{'median ms':>10}{'min':>9}{'max':>9}{'reference / it':>16}{'it / bare':>11}")
    for name, values in times.items():
        speedup, over = medians["reference"] / medians[name], medians[name] / medians["bare"]
        print(
            f"{name:12}{medians[name]:10.1f}{min(values):9.1f}{max(values):9.1f}{speedup:16.2f}{over:11.2f}"
        )
    result = {
        **vars(arguments),
        "processor": processor(),
        "torch": torch.__version__,
        "parameters": parameters,
        "median_ms": medians,
        "speedup_over_reference": {name: medians["reference"] / medians[name] for name in loops},
        "time_over_bare": {name: medians[name] / medians["bare"] for name in loops},
        "latents_max_difference": error,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
