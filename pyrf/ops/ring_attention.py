"""Attention of a chunk to the valid prefix of a layer's cache."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from pyrf.ops import cudnn_fp8, native
from pyrf.ops.attention_choice import CHOICE, Workload
from pyrf.ops.e4m3 import E4M3, attend, widened
from pyrf.ops.library import define, expect, expect_cache, expect_computed


class Args(NamedTuple):
    """q is [B, heads, N, head_dim], keys and values [B, heads, slots * N, head_dim]."""

    q: Tensor
    keys: Tensor
    values: Tensor
    length: int


def _check(args: Args) -> None:
    q, keys, values, length = args
    batch, heads, capacity, head_dim = expect_cache(keys, values)
    if q.ndim != 4:
        raise ValueError(f"q must be [B, heads, N, head_dim], got {list(q.shape)}")
    dtype = expect_computed("q", q.dtype, keys)
    expect("q", q, (batch, heads, q.shape[2], head_dim), dtype, keys.device)
    if not 1 <= length <= capacity:
        raise ValueError(f"length must lie in 1..{capacity}, got {length}")


def _empty(args: Args) -> Tensor:
    """Room for the result, [B, N, heads * head_dim]."""
    batch, heads, queries, head_dim = args.q.shape
    return args.q.new_empty(batch, queries, heads * head_dim)


def _sdpa(args: Args) -> Tensor:
    q, keys, values, length = args
    if keys.dtype == E4M3:
        return _mixed(F.scaled_dot_product_attention(*widened(q, keys, values, length)))
    return _mixed(F.scaled_dot_product_attention(q, keys.narrow(2, 0, length), values.narrow(2, 0, length)))


def _mixed(out: Tensor) -> Tensor:
    """[B, heads, N, head_dim] to [B, N, heads * head_dim]."""
    return out.transpose(1, 2).flatten(2)


def _run(args: Args) -> Tensor:
    return _mixed(attend(*args)) if args.keys.dtype == E4M3 else _sdpa(args)


def _launch(kernel: str, args: Args) -> Tensor:
    out = _empty(args)
    native.launch(kernel, args.q.device, *args, out)
    return out


def _kernel(args: Args) -> Tensor:
    return _launch("ring_attention", args)


def _e4m3_kernel(args: Args) -> Tensor:
    return _launch("ring_attention_e4m3", args)


def _cudnn(args: Args) -> Tensor:
    return _mixed(cudnn_fp8.attend(*args))


_BACKENDS = {"pyrf": _kernel, "sdpa": _sdpa}
_E4M3_BACKENDS = {"sdpa": _sdpa, "cudnn": _cudnn}
E4M3_WITHIN = 0.03
"""Relative L2 error that products in e4m3 may have beside products in q's dtype of the same rounded numbers.
Rounded weights alone bring a quarter of it (`benchmarks/fp8_attention.py`)."""


def _run_cpu(args: Args) -> Tensor:
    q = args.q
    if args.keys.dtype == E4M3:
        return _run(args)
    if CHOICE.mode == "sdpa" or q.stride(3) != 1 or native.cpu_attention_refusal(q.shape[3], q.dtype):
        return _sdpa(args)
    out = _empty(args)
    native.run_on_cpu("ring_attention", *args, out)
    return out


def _kernel_serves(q: Tensor, capability: tuple[int, int]) -> bool:
    """Whether pyrf's kernel serves these queries.

    Raises:
        ValueError: when it does not, and no other attention is allowed.
    """
    refusal = native.refusal(q.shape[1], q.shape[3], q.dtype, q.device, capability)
    if refusal and CHOICE.mode == "pyrf":
        raise ValueError(f"attention is set to pyrf, but {refusal}; set it to auto or sdpa")
    return refusal is None


def _run_cuda(args: Args) -> Tensor:
    if args.keys.dtype == E4M3:
        return _run_e4m3_on_cuda(args)
    if not _kernel_serves(args.q, native.CAPABILITY):
        return _sdpa(args)
    return _BACKENDS[CHOICE.choose(Workload.of(args.q, args.length), _BACKENDS, args)](args)


def _run_e4m3_on_cuda(args: Args) -> Tensor:
    backends = dict(_E4M3_BACKENDS)
    if _kernel_serves(args.q, native.E4M3_CAPABILITY):
        backends["pyrf"] = _e4m3_kernel
    workload = Workload.of(args.q, args.length)._replace(dtype=E4M3)
    return backends[CHOICE.choose(workload, backends, args, within=E4M3_WITHIN)](args)


_op = define("ring_attention", Args, check=_check, run=_run, cuda=_run_cuda, cpu=_run_cpu, fake=_empty)


def ring_attention(q: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
    """Attend from q to the first ``length`` tokens of the cache, without a mask. No gradient.

    The order of keys does not matter, so slots need no gathering. ``length`` takes one value for each
    chunk of the warm-up and then stays, so it is a number, not a tensor.

    Args:
        q: [B, heads, N, head_dim], rotated.
        keys, values: [B, heads, slots * N, head_dim], in q's dtype or e4m3. Beside e4m3, q is rounded to it,
            too (`pyrf.ops.e4m3.attend`).
        length: valid tokens.

    Returns:
        [B, N, heads * head_dim] in q's dtype.

    Raises:
        ValueError: when a shape, dtype or device does not fit.
    """
    return _op(q, keys, values, length)
