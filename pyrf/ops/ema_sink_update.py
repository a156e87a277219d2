"""The EMA-Sink (Reward Forcing, section 3.2): an evicted chunk is folded into the sink, in rotated space.

    K_sink <- alpha R K_sink + (1 - alpha) K_evicted        V_sink <- alpha V_sink + (1 - alpha) V_evicted

R moves the sink one chunk on in time, which keeps its distance to the current chunk constant; the
evicted chunk already stands there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyrf.ops import native
from pyrf.ops.e4m3 import E4M3
from pyrf.ops.library import (
    compute_dtype,
    define,
    expect,
    expect_cache,
    expect_slot,
    locate,
    read_slot,
    rounded,
)
from pyrf.ops.norm_rope_append import rotate

MASTER_DTYPES = {torch.bfloat16: torch.int16, torch.float16: torch.float32, E4M3: torch.float32}
"""What must be kept beside a sink of each dtype; nothing where the sink itself has float32's precision."""


def join_bits(high: Tensor, low: Tensor) -> Tensor:
    """The float32 that `split_bits` came from, exactly."""
    residual = low.to(torch.int32) & 0xFFFF
    top = high.view(torch.int16).to(torch.int32) - (residual >> 15)
    return ((top << 16) | residual).view(torch.float32)


def split_bits(x: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 as its rounded bfloat16 and the 16 bits (int16) that rounding hid."""
    bits = x.view(torch.int32)
    high = ((bits + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16)
    return high, (bits & 0xFFFF).to(torch.int16)


def _update(
    cache: Tensor, master: Tensor | None, place: int | Tensor, turn: Tensor | None, tokens: int, alpha: float
) -> None:
    """Update the sink of the keys or, without a ``turn``, of the values."""
    sink = cache.narrow(2, 0, tokens)
    evicted = read_slot(cache, place, tokens)
    if master is None:
        exact = sink
    elif master.dtype == torch.int16:
        exact = join_bits(sink, master)
    else:
        exact = master
    if turn is not None:
        timed = exact[..., : 2 * len(turn)]
        timed.copy_(rotate(timed, turn))
    exact.lerp_(evicted.to(exact.dtype), 1.0 - alpha)
    if master is None:
        return
    if master.dtype == torch.int16:
        high, low = split_bits(exact)
        sink.copy_(high)
        master.copy_(low)
    else:
        sink.copy_(rounded(master, sink.dtype))


class Args(NamedTuple):
    """keys and values are [B, heads, slots * tokens, head_dim]; see `ema_sink_update`."""

    keys: Tensor
    values: Tensor
    key_master: Tensor | None
    value_master: Tensor | None
    slot: Tensor
    turn: Tensor
    tokens: int
    alpha: float


def _check(args: Args) -> None:
    keys, turn, tokens = args.keys, args.turn, args.tokens
    batch, heads, capacity, head_dim = expect_cache(keys, args.values)
    expect_slot(args.slot, tokens, capacity, keys.device)
    if turn.ndim != 2 or len(turn) > head_dim // 2:
        raise ValueError(f"turn must be [up to {head_dim // 2} pairs, 2], got {list(turn.shape)}")
    expect("turn", turn, (len(turn), 2), compute_dtype(keys.dtype), keys.device)
    if not 0.0 <= args.alpha <= 1.0:
        raise ValueError(f"alpha must lie in [0, 1], got {args.alpha}")
    dtype = MASTER_DTYPES.get(keys.dtype)
    for name, master in (("key_master", args.key_master), ("value_master", args.value_master)):
        if (master is None) != (dtype is None):
            raise ValueError(f"{name} must be {dtype} for a cache of {keys.dtype}, got {master}")
        if master is not None and dtype is not None:
            expect(name, master, (batch, heads, tokens, head_dim), dtype, keys.device)


def _run(args: Args) -> None:
    place = locate(args.slot, args.tokens, args.keys.shape[2], first=1)
    _update(args.keys, args.key_master, place, args.turn, args.tokens, args.alpha)
    _update(args.values, args.value_master, place, None, args.tokens, args.alpha)


def _run_cuda(args: Args) -> None:
    keys = args.keys
    # Of e4m3 the arithmetic is the master's alone, float32 as in every kernel.
    if not native.serve(keys, torch.float16 if keys.dtype == E4M3 else keys.dtype):
        _run(args)
        return
    native.launch("ema_sink_update", keys.device, *args)


_op = define(
    "ema_sink_update",
    Args,
    check=_check,
    run=_run,
    cuda=_run_cuda,
    fake=lambda args: None,
    mutates=("keys", "values", "key_master", "value_master"),
    returns="()",
)


def ema_sink_update(
    keys: Tensor,
    values: Tensor,
    key_master: Tensor | None,
    value_master: Tensor | None,
    slot: Tensor,
    turn: Tensor,
    tokens: int,
    alpha: float,
) -> None:
    """Fold the chunk in a slot into the sink, which is slot 0, for the keys and values of one layer.

    The average is exact to float32 whatever the cache holds: alpha = 0.999 would round away in
    bfloat16. A bfloat16 slot is the upper half of the float32 and ``*_master`` the int16 lower half;
    a float16 or e4m3 slot is a rounded copy of a float32 ``*_master``; float32 and float64 need none.

    Args:
        keys, values: [B, heads, slots * tokens, head_dim], the first ``tokens`` written in place.
        key_master, value_master: [B, heads, tokens, head_dim], written in place, or None.
        slot: int64 scalar, the slot to be overwritten next, 1 or more.
        turn: [time pairs, 2] float32 (float64 for float64), cosine and sine of a turn by one chunk; the
            time pairs are a head's first.
        tokens: tokens of a chunk.
        alpha: weight of the old sink.

    Raises:
        ValueError: when a shape, dtype or device does not fit.
    """
    _op(keys, values, key_master, value_master, slot, turn, tokens, alpha)
