"""Every op beside its torch equivalent, in one run, on a GPU.

    python benchmarks/kernels.py [--model 14B] [--dtype float16]

At the sizes of a Wan model at 480 x 832 with a full window, and of its VAE's last blocks. Ours and torch's
take turns; before each run the L2 cache is overwritten, for so long that the run is queued by then, and CUDA
events time its kernels alone. torch's equivalents are the plain torch path of the op (what runs where pyrf
has no kernels) and, for attention, scaled_dot_product_attention, which picks among its own kernels. `of
floor` compares with the least time that an H100 needs (pyrf.reports.roofline); `ratio` is the time over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.rope import chunk_turn, rope_table
from pyrf.machine import percentile
from pyrf.models.wan21 import HEIGHT, LATENTS, MODELS, WIDTH
from pyrf.ops import (
    add_norm,
    add_norm_e4m3,
    bias_norm,
    ema_sink_update,
    native,
    norm_rope_append,
    quantise_rows,
    ring_attention,
)
from pyrf.ops.attention_choice import set_attention
from pyrf.ops.e4m3 import E4M3
from pyrf.ops.ema_sink_update import MASTER_DTYPES
from pyrf.reports.ceilings import Ceiling
from pyrf.reports.roofline import ELEMENT, Sizes, Work, e4m3_kernels, kernels

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
MISSING = 2
VAE_CHANNELS = 96
"""Of the Wan VAE's decoder at full size."""

Timer = Callable[[Callable[[], object]], float]


class Case(NamedTuple):
    """An op on tensors of the right sizes, and what it has to do."""

    work: Work
    run: Callable[[], object]


def cases(sizes: Sizes, size: LatentSize, dtype: torch.dtype, device: str) -> list[Case]:
    """The ops with a full window, a norm with SiLU of a chunk's frames in the Wan VAE, and the ops of e4m3.

    Args:
        size: of the latents.
    """
    model, stream, tokens = sizes.model, sizes.stream, sizes.tokens
    head_dim = model.head_dim
    pixels = sizes.tokens * LATENTS.temporal_stride * (2 * LATENTS.spatial_stride) ** 2

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    keys, values = (draw(1, model.num_heads, sizes.window, head_dim) for _ in range(2))
    q, k, v = draw(1, tokens, 3 * model.dim).chunk(3, -1)
    rotated = draw(1, model.num_heads, tokens, head_dim)
    norm_q, norm_k = draw(model.dim), draw(model.dim)
    rope = rope_table(model, range(stream.chunk_frames), size, device=device)
    turn = chunk_turn(model, stream.chunk_frames, dtype=torch.float32, device=device)
    slot = torch.full((), stream.slots - 1, device=device)
    key_master, value_master = (
        torch.zeros(1, model.num_heads, tokens, head_dim, dtype=MASTER_DTYPES[dtype], device=device)
        for _ in range(2)
    )
    y, residual = draw(1, tokens, model.dim), draw(1, tokens, model.dim)
    gate, weight, shift = (draw(model.dim) for _ in range(3))
    frames, vae_weight, vae_bias = draw(pixels, VAE_CHANNELS), draw(VAE_CHANNELS), draw(VAE_CHANNELS)
    sink, append, attention, sum_and_norm = kernels(sizes, wide_master=MASTER_DTYPES[dtype] == torch.float32)
    wide = [
        Case(
            sink,
            lambda: ema_sink_update(
                keys, values, key_master, value_master, slot, turn, tokens, stream.sink_alpha
            ),
        ),
        Case(
            append,
            lambda: norm_rope_append(q, k, v, norm_q, norm_k, model.eps, rope, slot, keys, values),
        ),
        Case(attention, lambda: ring_attention(rotated, keys, values, sizes.window)),
        Case(sum_and_norm, lambda: add_norm(y, residual, weight, gate=gate, shift=shift, eps=model.eps)),
        Case(
            vae_norm(pixels),
            lambda: bias_norm(frames, vae_weight, bias=vae_bias, eps=1e-12, rms=True, silu=True),
        ),
    ]
    narrow_keys, narrow_values = (x.to(E4M3) for x in (keys, values))
    wide_keys, wide_values = (
        torch.zeros(1, model.num_heads, tokens, head_dim, device=device) for _ in range(2)
    )
    hidden = draw(1, tokens, model.ffn_dim)
    sink, append, attention, sum_and_norm, quantised, activated = e4m3_kernels(sizes)
    return [
        *wide,
        Case(
            sink,
            lambda: ema_sink_update(
                narrow_keys, narrow_values, wide_keys, wide_values, slot, turn, tokens, stream.sink_alpha
            ),
        ),
        Case(
            append,
            lambda: norm_rope_append(
                q, k, v, norm_q, norm_k, model.eps, rope, slot, narrow_keys, narrow_values
            ),
        ),
        Case(attention, lambda: ring_attention(rotated, narrow_keys, narrow_values, sizes.window)),
        Case(sum_and_norm, lambda: add_norm_e4m3(y, residual, weight, gate=gate, shift=shift, eps=model.eps)),
        Case(quantised, lambda: quantise_rows(y)),
        Case(activated, lambda: quantise_rows(hidden, gelu=True)),
    ]


def vae_norm(pixels: int) -> Work:
    """Bias (1 operation per value), RMS norm (5) and SiLU (4) of each pixel's channels: one in, one out."""
    values = pixels * VAE_CHANNELS
    return Work("bias_norm, VAE", 10 * values, ELEMENT * (2 * values + 2 * VAE_CHANNELS))


@contextmanager
def plain_torch() -> Iterator[None]:
    """The ops as they run where pyrf is built without kernels."""
    kept = native.kernels
    native.kernels = None
    set_attention("sdpa")
    try:
        yield
    finally:
        native.kernels = kept
        set_attention("pyrf")


class EventTimer:
    """Seconds of a run on the current CUDA device, by events, after overwriting its L2 cache."""

    def __init__(self) -> None:
        # Far beyond the cache: while it is written, 0.3 ms and more, the host launches the run.
        self.scratch = torch.empty(2**30, dtype=torch.uint8, device="cuda")

    def __call__(self, run: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.scratch.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def measure(case: Case, timer: Timer, warm_up: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds and rates of ours and of torch, which take turns."""
    seconds: dict[str, list[float]] = {"pyrf": [], "torch": []}
    for turn in range(warm_up + repeats):
        once = {"pyrf": timer(case.run)}
        with plain_torch():
            once["torch"] = timer(case.run)
        if turn >= warm_up:
            for name, value in once.items():
                seconds[name].append(value)
    return {name: figures(case.work, values) for name, values in seconds.items()}


def figures(work: Work, seconds: list[float]) -> dict[str, float]:
    """Median and spread in microseconds, and the rates at the median."""
    median = statistics.median(seconds)
    return {
        "median_us": 1e6 * median,
        "p10_us": 1e6 * percentile(seconds, 10),
        "p90_us": 1e6 * percentile(seconds, 90),
        "gigabytes_per_s": work.bytes / median / 1e9,
        "tflop_per_s": work.flops / median / 1e12,
        "of_the_floor": work.floor(Ceiling()) / median,
    }


def why_not(sizes: Sizes, dtype: torch.dtype) -> str | None:
    """What keeps the kernels from being timed here; None when they can be."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device, so no op can be timed; `pyrf bench --roofline` tells their floors"
    model = sizes.model
    device = torch.device("cuda", torch.cuda.current_device())
    return native.refusal(model.num_heads, model.head_dim, dtype, device)


def multiplies_e4m3(sizes: Sizes, dtype: torch.dtype) -> bool:
    """Whether attention in e4m3 can be timed here; GPUs before capability 8.9 have no such products."""
    model, device = sizes.model, torch.device("cuda", torch.cuda.current_device())
    reason = native.refusal(model.num_heads, model.head_dim, dtype, device, native.E4M3_CAPABILITY)
    return reason is None


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a line for each op and each of the two."""
    heads = ("median us", "p10", "p90", "GB/s", "TFLOP/s", "of floor", "ratio")
    print(f"{'':24}{'':7}" + "".join(f"{head:>11}" for head in heads))
    for name, pair in results.items():
        for who, one in pair.items():
            cells = [f"{one[key]:.1f}" for key in ("median_us", "p10_us", "p90_us")]
            cells += [f"{one['gigabytes_per_s']:.0f}", f"{one['tflop_per_s']:.1f}"]
            cells += [
                f"{100 * one['of_the_floor']:.1f} %",
                f"{one['median_us'] / pair['pyrf']['median_us']:.2f}",
            ]
            print(f"{name:24}{who:7}" + "".join(f"{cell:>11}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=["1.3B", "14B"], default="1.3B")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--warm-up", type=int, default=10, help="untimed runs of each")
    parser.add_argument("--repeats", type=int, default=100, help="timed runs of each")
    parser.add_argument(
        "--require-gpu", action="store_true", help=f"exit with {MISSING} where nothing can be timed"
    )
    arguments = parser.parse_args()
    dtype = DTYPES[arguments.dtype]
    sizes = Sizes.of(MODELS[f"Wan2.1-T2V-{arguments.model}"], StreamConfig(), HEIGHT, WIDTH)
    if reason := why_not(sizes, dtype):
        print(f"nothing was timed: {reason}")
        print(json.dumps({**vars(arguments), "timed": False, "reason": reason}))
        raise SystemExit(MISSING if arguments.require_gpu else 0)

    size = LatentSize(HEIGHT // LATENTS.spatial_stride, WIDTH // LATENTS.spatial_stride)
    set_attention("pyrf")
    results = {
        case.work.name: measure(case, EventTimer(), arguments.warm_up, arguments.repeats)
        for case in cases(sizes, size, dtype, "cuda")
        if case.work.name != "ring_attention_e4m3" or multiplies_e4m3(sizes, dtype)
    }
    show(results)
    result = {
        **vars(arguments),
        "timed": True,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tokens": sizes.tokens,
        "window_tokens": sizes.window,
        "results": results,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
