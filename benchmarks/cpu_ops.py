"""The loops and packed linears of a CPU beside what torch does without them.

    python benchmarks/cpu_ops.py --threads 2

Times each at the sizes of the bundled model and of the 36 M model of `reference_loop.py`, a full window of
keys, float32, batch 1; ours and torch's in turns, on several layers' tensors so that they come cold. Medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import nn

from pyrf.machine import processor
from pyrf.models.dit.packed_linear import MIN_WEIGHTS, PackedLinear
from pyrf.ops import add_norm, native, norm_rope_append, ring_attention
from pyrf.ops.gelu import gelu_tanh

LAYERS = 8
EPS = 1e-6


class Sizes(NamedTuple):
    """Of a chunk's call."""

    name: str
    tokens: int
    heads: int
    head_dim: int
    ffn_dim: int

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim


SIZES = (Sizes("bundled", 72, 4, 32, 512), Sizes("36 M", 336, 4, 128, 2048))
WINDOW = 3
"""Chunks that attention sees."""


class Case(NamedTuple):
    """What is timed: a layer's call by us, and by torch in `plain_torch`; a product with its operations."""

    name: str
    ours: Callable[[int], object]
    torchs: Callable[[int], object]
    flop: int | None


@contextmanager
def plain_torch() -> Iterator[None]:
    """The ops as they are without the native module."""
    kept, native.cpu = native.cpu, None
    try:
        yield
    finally:
        native.cpu = kept


def cases(sizes: Sizes) -> Iterator[Case]:
    """Every case at these sizes."""
    tokens, heads, head_dim, dim = sizes.tokens, sizes.heads, sizes.head_dim, sizes.dim
    rows = torch.randn(LAYERS, 4, 1, tokens, dim)
    vectors = torch.randn(LAYERS, 3, dim)
    rope = torch.randn(tokens, head_dim // 2, 2)
    caches = torch.randn(LAYERS, 2, 1, heads, WINDOW * tokens, head_dim)
    slot = torch.tensor(WINDOW - 1)

    def append(i: int) -> object:
        (q, k, v), (norm_q, norm_k), (keys, values) = rows[i, :3], vectors[i, :2], caches[i]
        return norm_rope_append(q, k, v, norm_q, norm_k, EPS, rope, slot, keys, values)

    def attend(i: int) -> object:
        q = rows[i, 0].unflatten(-1, (heads, head_dim)).transpose(1, 2)
        keys, values = caches[i]
        return ring_attention(q, keys, values, WINDOW * tokens)

    def sum_and_norm(i: int) -> object:
        gate, weight, shift = vectors[i]
        return add_norm(rows[i, 0], rows[i, 1], weight, gate=gate, shift=shift, eps=EPS)

    yield Case("norm_rope_append", append, append, None)
    yield Case("ring_attention", attend, attend, 4 * tokens * WINDOW * tokens * dim)
    yield Case("add_norm", sum_and_norm, sum_and_norm, None)
    if torch.backends.mkldnn.is_available():
        if dim * dim >= MIN_WEIGHTS:
            yield linear_case(tokens, dim, dim)
        yield linear_case(tokens, sizes.ffn_dim, dim, gelu=True)
        yield linear_case(tokens, dim, sizes.ffn_dim)


def linear_case(tokens: int, width: int, depth: int, gelu: bool = False) -> Case:
    x = torch.randn(1, tokens, depth)
    linears = [nn.Linear(depth, width).requires_grad_(False) for _ in range(LAYERS)]
    packed = [PackedLinear(linear, gelu) for linear in linears]

    def torchs(i: int) -> object:
        y = linears[i](x)
        return gelu_tanh(y) if gelu else y

    name = f"linear {depth} to {width}{', GELU' if gelu else ''}"
    return Case(name, lambda i: packed[i](x), torchs, 2 * tokens * width * depth)


def timed(case: Case, repeats: int) -> tuple[float, float]:
    """Median microseconds of a call by us and by torch."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        settings: tuple[AbstractContextManager[None], ...] = (nullcontext(), plain_torch())
        for run, setting, found in zip((case.ours, case.torchs), settings, times):
            with setting:
                start = time.perf_counter()
                for layer in range(LAYERS):
                    run(layer)
            if repeat:  # the first warms up
                found.append(1e6 * (time.perf_counter() - start) / LAYERS)
    ours, torchs = (statistics.median(found) for found in times)
    return ours, torchs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = []
    print(f"{'':32}{'ours us':>10}{'torch us':>10}{'torch / ours':>14}{'GFLOP/s':>10}{'torch':>8}")
    with torch.inference_mode():
        for sizes in SIZES:
            for case in cases(sizes):
                ours, torchs = timed(case, arguments.repeats)
                rates = [case.flop / us / 1e3 for us in (ours, torchs)] if case.flop else []
                shown = "".join(f"{rate:{width}.0f}" for rate, width in zip(rates, (10, 8)))
                print(f"{sizes.name:9}{case.name:23}{ours:10.1f}{torchs:10.1f}{torchs / ours:14.2f}{shown}")
                results.append({"model": sizes.name, "op": case.name, "us": ours, "torch_us": torchs})
    method = {**vars(arguments), "processor": processor(), "torch": torch.__version__}
    print(json.dumps({**method, "results": results}))


if __name__ == "__main__":
    main()
