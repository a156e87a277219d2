"""RMS norm, rotation and the write into the cache, from the projections of one self-attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.ops import native
from pyrf.ops.library import (
    compute_dtype,
    define,
    expect,
    expect_cache,
    expect_computed,
    expect_contiguous,
    expect_slot,
    locate,
    write_slot,
)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn adjacent channel pairs of x [..., N, head_dim] by rope [N, head_dim / 2, 2]. Differentiable."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def norm_rotate(x: Tensor, weight: Tensor, eps: float, rope: Tensor) -> Tensor:
    """RMS norm over all channels of x [B, N, D], then rotation: [B, heads, N, head_dim]. Differentiable."""
    normed = F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)
    return rotate(normed.unflatten(-1, (-1, 2 * rope.shape[1])).transpose(1, 2), rope).to(x.dtype)


def _norm_rotate(x: Tensor, weight: Tensor, eps: float, rope: Tensor) -> Tensor:
    """`norm_rotate` without a gradient, in fewer passes over memory: one reduction, one complex product.

    A token's heads lie together in memory, so that attention's output, which is laid out as its queries are,
    needs no transposing.
    """
    x = x.to(rope.dtype)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return _rotate_in_place((x * scale).mul_(weight), rope)


def _rotate_in_place(x: Tensor, rope: Tensor) -> Tensor:
    """`rotate` of x [B, N, D] in rope's dtype, which is overwritten: [B, heads, N, head_dim]."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, rope.shape[1], 2)))
    pairs.mul_(torch.view_as_complex(rope)[:, None])
    return torch.view_as_real(pairs).flatten(-2).transpose(1, 2)


class Args(NamedTuple):
    """q, k and v are [B, N, D]; see `norm_rope_append`."""

    q: Tensor
    k: Tensor
    v: Tensor
    norm_q: Tensor
    norm_k: Tensor
    eps: float
    rope: Tensor
    slot: Tensor
    keys: Tensor
    values: Tensor


def _check(args: Args) -> None:
    batch, heads, capacity, head_dim = expect_cache(args.keys, args.values)
    if args.q.ndim != 3:
        raise ValueError(f"q must be [B, N, D], got {list(args.q.shape)}")
    tokens, device = args.q.shape[1], args.keys.device
    dtype = expect_computed("q", args.q.dtype, args.keys)
    for name, x in (("q", args.q), ("k", args.k), ("v", args.v)):
        expect(name, x, (batch, tokens, heads * head_dim), dtype, device)
        if x.stride(2) != 1:
            raise ValueError(f"{name} must be contiguous in its channels, got strides {x.stride()}")
    tables = {
        "norm_q": (args.norm_q, (heads * head_dim,), dtype),
        "norm_k": (args.norm_k, (heads * head_dim,), dtype),
        "rope": (args.rope, (tokens, head_dim // 2, 2), compute_dtype(dtype)),
    }
    for name, (table, shape, table_dtype) in tables.items():
        expect(name, table, shape, table_dtype, device)
        expect_contiguous(name, table)
    expect_slot(args.slot, tokens, capacity, device)


def _empty(args: Args) -> Tensor:
    """Room for the rotated q, [B, N, heads, head_dim]."""
    batch, heads, _, head_dim = args.keys.shape
    return args.q.new_empty(batch, args.q.shape[1], heads, head_dim)


def _run(args: Args) -> Tensor:
    q, k, v, norm_q, norm_k, eps, rope, slot, keys, values = args
    write_heads(_norm_rotate(k, norm_k, eps, rope), v, slot, keys, values)
    return _norm_rotate(q, norm_q, eps, rope).to(q.dtype)


def _run_cpu(args: Args) -> Tensor:
    if native.cpu is None or args.keys.dtype != torch.float32:
        return _run(args)
    locate(args.slot, args.q.shape[1], args.keys.shape[2])  # refuses a slot outside the cache
    out = _empty(args)
    native.run_on_cpu("norm_rope_append", *args, out)
    return out.transpose(1, 2)


def _run_cuda(args: Args) -> Tensor:
    if not native.serve(args.keys, args.q.dtype):
        return _run(args)
    out = _empty(args)
    native.launch("norm_rope_append", args.keys.device, *args, out)
    return out.transpose(1, 2)


_op = define(
    "norm_rope_append",
    Args,
    check=_check,
    run=_run,
    cuda=_run_cuda,
    cpu=_run_cpu,
    fake=lambda args: _empty(args).transpose(1, 2),
    mutates=("keys", "values"),
)


def norm_rope_append(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    norm_q: Tensor,
    norm_k: Tensor,
    eps: float,
    rope: Tensor,
    slot: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Normalise and rotate q and k; write k and v into their slot. No gradient.

    Args:
        q, k, v: [B, N, D] of a chunk of N tokens; any stride between rows. The tables are contiguous.
        norm_q, norm_k: [D], weights of the RMS norms over all D channels.
        eps: of the norms.
        rope: [N, head_dim / 2, 2] float32 (float64 for float64), cosine and sine of each token and pair.
        slot: int64 scalar; the chunk goes to tokens slot * N ... of the cache.
        keys, values: [B, heads, slots * N, head_dim], written in place; in the dtype of q, k and v, or e4m3
            (`pyrf.ops.e4m3.to_e4m3`).

    Returns:
        The rotated q, [B, heads, N, head_dim], in the dtype it had; a token's heads together in memory.

    Raises:
        ValueError: when a shape, dtype or device does not fit.
    """
    return _op(q, k, v, norm_q, norm_k, eps, rope, slot, keys, values)


def rotate_heads(x: Tensor, rope: Tensor) -> Tensor:
    """`rotate` of x [B, N, D] that is normalised already, without a gradient: [B, heads, N, head_dim]."""
    return _rotate_in_place(x.to(rope.dtype, copy=True), rope).to(x.dtype)


def write_heads(k: Tensor, v: Tensor, slot: Tensor, keys: Tensor, values: Tensor) -> None:
    """Write k [B, heads, N, head_dim], rotated, and v [B, N, D] into their slot; see `norm_rope_append`."""
    place = locate(slot, v.shape[1], keys.shape[2])
    write_slot(keys, place, k)
    write_slot(values, place, v.unflatten(-1, (-1, keys.shape[3])).transpose(1, 2))
