"""One combined check a kernel, in numpy alone, against float64: quick enough to run once for each mutant.

    python -m tests.kernels.checks LIBRARY [KERNEL ...]

exits with 0 when every check holds, and otherwise prints the first that does not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.kernels.emulator import EVERY_SCHEDULE, KERNELS, Emulator

POISON = 0xFFFF  # NaN as bfloat16 and as float16
ULP = {"bf16": 2.0**-7, "fp16": 2.0**-10}
"""Distance of neighbouring numbers, relative to the lower end of their binade."""


def to_bits(x: np.ndarray, dtype: str) -> np.ndarray:
    """Round to a 16-bit float, ties to even; the bits as uint16."""
    if dtype == "fp16":
        return x.astype(np.float16).view(np.uint16)
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bits(bits: np.ndarray, dtype: str) -> np.ndarray:
    """The float64 value of a 16-bit float's bits."""
    if dtype == "fp16":
        return bits.view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def aligned(shape: tuple[int, ...], dtype: type, fill: int | float = 0) -> np.ndarray:
    """A new array at an address with 16-byte alignment, with no byte to spare behind it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + 16, np.uint8)
    start = -memory.ctypes.data % 16
    out: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    out[...] = fill
    return out


def place(x: np.ndarray) -> np.ndarray:
    """An aligned copy."""
    out = aligned(x.shape, x.dtype.type)
    out[...] = x
    return out


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random normal numbers as aligned bits."""
    return place(to_bits(rng.standard_normal(shape), dtype))


def turn_pairs(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Multiply adjacent pairs of the last dimension, as complex numbers, by a table [..., pairs, 2]."""
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    pairs = pairs * (table[..., 0].astype(np.float64) + 1j * table[..., 1])
    return np.stack((pairs.real, pairs.imag), -1).reshape(x.shape)


def angles(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 table of cosines and sines, [*shape, 2]."""
    angle = rng.uniform(-np.pi, np.pi, shape)
    return place(np.stack((np.cos(angle), np.sin(angle)), -1).astype(np.float32))


def join_bits(slot: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The float32 of a bfloat16 slot and its residual."""
    low = residual.view(np.uint16).astype(np.uint32)
    return (((slot.astype(np.uint32) - (low >> 15)) << 16) | low).view(np.float32)


def rel_l2(got: np.ndarray, expected: np.ndarray) -> float:
    """Distance relative to the expected norm; NaN counts as far."""
    error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    return error if error == error else float("inf")


def expect_close(
    what: str, got: np.ndarray, expected: np.ndarray, ulps: float, dtype: str, slack: float = 0.0
) -> None:
    """Within so many ulps of the expected number, element by element; slack is for terms that cancel."""
    ulp = ULP[dtype] * 2.0 ** np.floor(np.log2(np.maximum(np.abs(expected), 2.0**-10)))
    worst = np.max((np.abs(got - expected) - slack) / ulp)
    assert worst <= ulps, f"{what} is {worst:.3g} ulps off, {ulps} are allowed"


@dataclass(frozen=True)
class Sizes:
    """A cache of [batch, heads, slots * tokens, head_dim]."""

    batch: int = 2
    heads: int = 2
    slots: int = 3
    tokens: int = 5
    head_dim: int = 64
    dtype: str = "bf16"

    @property
    def cache(self) -> tuple[int, int, int, int]:
        return self.batch, self.heads, self.slots * self.tokens, self.head_dim

    @property
    def sink(self) -> tuple[int, int, int, int]:
        return self.batch, self.heads, self.tokens, self.head_dim


@dataclass(frozen=True)
class Rows:
    """Rows of an add_norm [rows, dim], and what is done to them."""

    rows: int
    dim: int
    given: tuple[str, ...] = ("residual", "gate", "bias", "weight", "shift")
    rms: bool = False
    silu: bool = False
    dtype: str = "bf16"


def check_add_norm(emulator: Emulator, rows: Rows) -> None:
    """The sum, and the norm of the sum as it is rounded, of rows whose mean is 5; outputs start as NaN."""
    rng = np.random.default_rng(6)
    dtype, shape, eps, slack = rows.dtype, (rows.rows, rows.dim), 0.3, 2e-6
    y = place(to_bits(5 + rng.standard_normal(shape), dtype))
    shapes = dict.fromkeys(("gate", "bias", "weight", "shift"), shape[1:]) | {"residual": shape}
    given = {name: draw(rng, shapes[name], dtype) if name in rows.given else None for name in shapes}
    total = aligned(shape, np.uint16, POISON) if "residual" in rows.given else None
    normed = aligned(shape, np.uint16, POISON) if "weight" in rows.given else None
    flags = {"rms": rows.rms, "silu": rows.silu}
    emulator.run("add_norm", dtype, y=y, **given, eps=eps, **flags, sum=total, normed=normed)

    wide = {name: None if x is None else from_bits(x, dtype) for name, x in given.items()}
    x = from_bits(y, dtype)
    if wide["gate"] is not None:
        x = x * wide["gate"]
    for name in ("bias", "residual"):
        if wide[name] is not None:
            x = x + wide[name]
    if total is not None:
        expect_close("the sum", from_bits(total, dtype), x, 0.51, dtype, slack)
    if normed is None:
        return
    # Of rows that nobody else has rounded, the kernel rounds as we do.
    x = from_bits(to_bits(x.astype(np.float32), dtype) if total is None else total, dtype)
    if not rows.rms:
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * wide["weight"]
    if wide["shift"] is not None:
        x = x + wide["shift"]
    if rows.silu:
        x = x / (1 + np.exp(-x))
    expect_close("normed", from_bits(normed, dtype), x, 0.52, dtype, slack)


def check_ema_sink_update(emulator: Emulator, sizes: Sizes, slot: int, pairs: int, updates: int = 2) -> None:
    """Sinks and masters after a few updates; everything else in the cache is untouched."""
    rng = np.random.default_rng(7)
    dtype, tokens, alpha = sizes.dtype, sizes.tokens, 0.9
    caches = [draw(rng, sizes.cache, dtype) for _ in range(2)]
    exact = [from_bits(cache[:, :, :tokens], dtype) for cache in caches]
    if dtype == "bf16":
        masters = [aligned(sizes.sink, np.int16) for _ in range(2)]
    else:
        masters = [place(x.astype(np.float32)) for x in exact]
    turn = angles(rng, (pairs,))
    valid = 0 <= slot < sizes.slots
    before = [cache.copy() for cache in caches]
    tensors = dict(zip(("keys", "values", "key_master", "value_master"), (*caches, *masters)))
    tensors |= {"slot": place(np.array(slot)), "turn": turn}
    for _ in range(updates):
        emulator.run("ema_sink_update", dtype, **tensors, tokens=tokens, alpha=alpha)
        if valid:
            exact[0][..., : 2 * pairs] = turn_pairs(exact[0][..., : 2 * pairs], turn)
            for x, cache in zip(exact, before):
                x *= alpha
                x += (1 - alpha) * from_bits(cache[:, :, slot * tokens : (slot + 1) * tokens], dtype)
    for name, x, cache, master, old in zip(("keys", "values"), exact, caches, masters, before):
        sink = cache[:, :, :tokens]
        full = join_bits(sink, master) if dtype == "bf16" else master
        assert np.array_equal(cache[:, :, tokens:], old[:, :, tokens:]), f"{name}: another slot changed"
        assert np.max(np.abs(full - x)) <= 1e-6, f"{name}: the master is {np.max(np.abs(full - x)):.3g} off"
        expect_close(f"{name}: the sink", from_bits(sink, dtype), x, 0.51, dtype)


def check_norm_rope_append(emulator: Emulator, sizes: Sizes, slot: int, fused: bool) -> None:
    """Queries, and keys and values in their slot; everything else in the cache is untouched."""
    rng = np.random.default_rng(8)
    dtype, tokens, eps = sizes.dtype, sizes.tokens, 0.3
    shape = (sizes.batch, tokens, sizes.heads * sizes.head_dim)
    if fused:
        q, k, v = np.split(draw(rng, (*shape[:2], 3 * shape[2]), dtype), 3, -1)
    else:
        q, k, v = (draw(rng, shape, dtype) for _ in range(3))
    norms = [draw(rng, shape[2:], dtype) for _ in range(2)]
    rope = angles(rng, (tokens, sizes.head_dim // 2))
    keys, values = (draw(rng, sizes.cache, dtype) for _ in range(2))
    before = keys.copy(), values.copy()
    q_out = aligned((*shape[:2], sizes.heads, sizes.head_dim), np.uint16, POISON)
    tensors = {"q": q, "k": k, "v": v, "norm_q": norms[0], "norm_k": norms[1], "rope": rope}
    tensors |= {"slot": place(np.array(slot)), "keys": keys, "values": values, "q_out": q_out}
    emulator.run("norm_rope_append", dtype, **tensors, eps=eps)

    def expected(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        x = from_bits(x, dtype)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * from_bits(weight, dtype)
        return turn_pairs(heads_first(x), rope)

    def heads_first(x: np.ndarray) -> np.ndarray:
        return x.reshape(*shape[:2], sizes.heads, -1).transpose(0, 2, 1, 3)

    expect_close("q", heads_first(from_bits(q_out, dtype)), expected(q, norms[0]), 0.52, dtype)
    for name, cache, old in (("keys", keys, before[0]), ("values", values, before[1])):
        if 0 <= slot < sizes.slots:
            inside = slice(slot * tokens, (slot + 1) * tokens)
            if name == "keys":
                expect_close("k", from_bits(cache[:, :, inside], dtype), expected(k, norms[1]), 0.52, dtype)
            else:
                assert np.array_equal(cache[:, :, inside], heads_first(v)), "v is not what was given"
            old[:, :, inside] = cache[:, :, inside]
        assert np.array_equal(cache, old), f"{name}: another slot changed"


def attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Softmax attention, [B, H, N, d] to [B, N, H * d]."""
    scores = q @ keys.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = weights @ values / weights.sum(-1, keepdims=True)
    return out.transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[2], -1)


def check_ring_attention(
    emulator: Emulator, sizes: Sizes, queries: int, length: int, spread: float = 1.0
) -> float:
    """Outputs for NaN in the unfilled part of the cache, without bank conflicts; returns the error."""
    rng = np.random.default_rng(9)
    dtype = sizes.dtype
    q = place(to_bits(spread * rng.standard_normal((*sizes.cache[:2], queries, sizes.head_dim)), dtype))
    keys, values = (draw(rng, sizes.cache, dtype) for _ in range(2))
    expected = attention(*(from_bits(x, dtype) for x in (q, keys[:, :, :length], values[:, :, :length])))
    keys[:, :, length:] = values[:, :, length:] = POISON
    out = aligned((sizes.batch, queries, sizes.heads * sizes.head_dim), np.uint16, POISON)
    emulator.counters()
    emulator.run("ring_attention", dtype, q=q, keys=keys, values=values, length=length, out=out)
    conflicts = emulator.counters().bank_conflicts
    assert conflicts == 0, f"{conflicts} bank conflicts"
    error = rel_l2(from_bits(out, dtype), expected)
    assert error <= 3e-3, f"out is {error:.3g} off"
    return error


def check_kernel(emulator: Emulator, kernel: str) -> None:
    """The combined check of a kernel: few and small shapes, every schedule and copy mode."""
    for schedule, copy_mode in EVERY_SCHEDULE:
        emulator.configure(schedule, copy_mode)
        if kernel == "ring_attention":
            check_ring_attention(emulator, Sizes(slots=15, tokens=10), queries=37, length=131)
            continue
        if copy_mode:
            continue  # the others copy nothing in the background
        if kernel == "add_norm":
            check_add_norm(emulator, Rows(33, 96, ("bias", "weight"), rms=True, silu=True))
            check_add_norm(emulator, Rows(18, 384))
        elif kernel == "ema_sink_update":
            check_ema_sink_update(emulator, Sizes(), slot=2, pairs=12)
            check_ema_sink_update(emulator, Sizes(head_dim=128, tokens=3, dtype="fp16"), slot=1, pairs=21)
        else:
            check_norm_rope_append(emulator, Sizes(heads=5), slot=1, fused=True)
            check_norm_rope_append(emulator, Sizes(head_dim=128, dtype="fp16"), slot=2, fused=False)
    if kernel == "add_norm":
        check_add_norm(emulator, Rows(5, 1536, dtype="fp16"))
        check_add_norm(emulator, Rows(5, 5120, ("residual", "weight", "shift")))
        check_add_norm(emulator, Rows(9, 200, ("residual", "bias"), dtype="fp16"))
        check_add_norm(emulator, Rows(70, 128, ("weight",)))
    elif kernel == "ema_sink_update":
        for slot in (-1, 3):
            check_ema_sink_update(emulator, Sizes(), slot=slot, pairs=12)
    elif kernel == "norm_rope_append":
        for slot in (-1, 3):
            check_norm_rope_append(emulator, Sizes(), slot=slot, fused=True)
    else:
        check_ring_attention(emulator, Sizes(batch=1, slots=4, dtype="fp16"), queries=5, length=9, spread=8)
        sizes = Sizes(batch=1, heads=3, slots=11, tokens=10, head_dim=128)
        check_ring_attention(emulator, sizes, queries=140, length=101)


if __name__ == "__main__":
    loaded = Emulator(Path(sys.argv[1]))
    for name in sys.argv[2:] or KERNELS:
        try:
            check_kernel(loaded, name)
        except (AssertionError, RuntimeError) as error:
            sys.exit(f"{name}: {error}")
