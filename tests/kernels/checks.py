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
from tests.kernels.numbers import (
    LEAST,
    POISON,
    ULP,
    aligned,
    draw,
    every_tie,
    from_bits,
    join_bits,
    place,
    to_bits,
)


def turn_pairs(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Multiply adjacent pairs of the last dimension, as complex numbers, by a table [..., pairs, 2]."""
    pairs = x[..., 0::2] + 1j * x[..., 1::2]
    pairs = pairs * (table[..., 0].astype(np.float64) + 1j * table[..., 1])
    return np.stack((pairs.real, pairs.imag), -1).reshape(x.shape)


def angles(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 table of cosines and sines, [*shape, 2]."""
    angle = rng.uniform(-np.pi, np.pi, shape)
    return place(np.stack((np.cos(angle), np.sin(angle)), -1).astype(np.float32))


def rel_l2(got: np.ndarray, expected: np.ndarray) -> float:
    """Distance relative to the expected norm; NaN counts as far."""
    error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    return error if error == error else float("inf")


def expect_close(
    what: str, got: np.ndarray, expected: np.ndarray, ulps: float, dtype: str, slack: float = 0.0
) -> None:
    """Within so many ulps of the expected number, element by element; slack is for terms that cancel."""
    ulp = ULP[dtype] * 2.0 ** np.floor(np.log2(np.maximum(np.abs(expected), LEAST[dtype])))
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
    stored: str = ""  # dtype of the cache, where it is another

    @property
    def cache_dtype(self) -> str:
        return self.stored or self.dtype

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


EPS = 0.3  # of add_norm


def add_norm_inputs(rows: Rows) -> dict[str, np.ndarray | None]:
    """y, whose mean is 5, and what is given beside it."""
    rng, shape = np.random.default_rng(6), (rows.rows, rows.dim)
    y = place(to_bits(5 + rng.standard_normal(shape), rows.dtype))
    shapes = dict.fromkeys(("gate", "bias", "weight", "shift"), shape[1:]) | {"residual": shape}
    given = {name: draw(rng, shapes[name], rows.dtype) if name in rows.given else None for name in shapes}
    return {"y": y, **given}


def run_add_norm(emulator: Emulator, rows: Rows, *, quantises: bool = False) -> list[np.ndarray | None]:
    """The sum, what is normed, and scales; they start as NaN."""
    shape = (rows.rows, rows.dim)
    total = aligned(shape, np.uint16, POISON) if "residual" in rows.given else None
    normed = aligned(shape, np.uint8 if quantises else np.uint16, POISON & (0xFF if quantises else POISON))
    scales = aligned((rows.rows, 1), np.float32, np.nan) if quantises else None
    out = {"sum": total, "normed": normed if "weight" in rows.given else None, "scales": scales}
    numbers = {"eps": EPS, "rms": rows.rms, "silu": rows.silu}
    emulator.run("add_norm", rows.dtype, **add_norm_inputs(rows), **numbers, **out)
    return list(out.values())


def quantised(bits: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows as e4m3 and their scales, by the float32 products that define them."""
    with np.errstate(invalid="ignore"):
        x = from_bits(bits, dtype).astype(np.float32)
        largest = np.abs(x).max(-1, keepdims=True)
        scales = np.where(largest < 1e-12, np.float32(1e-12), largest) * np.float32(1 / 448)
        rounded = to_bits(x * (1 / scales), "e4m3")
        is_nan = np.isnan(x * (1 / scales))
    return np.where(is_nan, np.uint8(0x7F), rounded), scales


def check_add_norm_e4m3(emulator: Emulator, rows: Rows) -> None:
    """In one pass the bits of two: the norm in 16 bits, and its rows in e4m3."""
    total, normed, _ = run_add_norm(emulator, rows)
    same_total, got, scales = run_add_norm(emulator, rows, quantises=True)
    assert normed is not None
    assert got is not None
    assert scales is not None
    expected = quantised(normed, rows.dtype)
    if total is not None and same_total is not None:
        assert np.array_equal(total, same_total), "the sum is another"
    assert np.array_equal(scales, expected[1]), "the scales are not those of the rows"
    assert np.array_equal(got, expected[0]), "the rows in e4m3 are not those that are scaled"


def special_rows(rng: np.random.Generator, rows: int, dim: int, dtype: str) -> np.ndarray:
    """Random rows of several sizes; of four or more the last are of zeros, with NaN, and with an infinity."""
    x = rng.standard_normal((rows, dim)) * np.resize([2, 1e-4, 0.5, 1e4], (rows, 1))
    if rows > 3:
        x[-3], x[-2, dim // 2], x[-1, -1] = 0, np.nan, -np.inf
    bits = to_bits(x, dtype)
    if rows > 3:
        bits[-2, dim // 2] = 0x7FC0 if dtype == "bf16" else 0x7E00
    return place(bits)


def check_quantise_rows(emulator: Emulator, rows: int, dim: int, dtype: str = "bf16") -> None:
    """Every bit of rows and scales; then of their GELU, which is known to half a step and a hair more."""
    x = special_rows(np.random.default_rng(10), rows, dim, dtype)

    def run(gelu: bool) -> tuple[np.ndarray, np.ndarray]:
        out = aligned(x.shape, np.uint8, 0xFF), aligned((rows, 1), np.float32, -1.0)
        emulator.run("quantise_rows", dtype, x=x, gelu=gelu, rows=out[0], scales=out[1])
        return out

    for got, expected in zip(run(gelu=False), quantised(x, dtype)):
        assert np.array_equal(got, expected, equal_nan=got.dtype == np.float32), (
            "a row is not what it is scaled to"
        )
    wide = np.where(np.abs(from_bits(x, dtype)) < 1e30, from_bits(x, dtype), np.nan)
    gated = wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3))) / 2
    whole = np.isfinite(gated).all(-1)
    out, scales = run(gelu=True)
    largest = np.abs(gated[whole]).max(-1, keepdims=True)
    off = np.abs(scales[whole] - np.maximum(largest, 1e-12) / 448)
    least = 2.0**-25  # half of float16's smallest number
    assert np.all(off <= 0.51 * ULP[dtype] * largest / 448 + least / 448), "a scale is not GELU's"
    error = np.abs(from_bits(out[whole], "e4m3") * scales[whole] - gated[whole])
    allowed = (2.0**-4 + ULP[dtype]) * np.abs(gated[whole]) + 2.2e-6 * largest + 1.1 * least
    assert np.all(error <= allowed), "GELU is off"
    assert np.isnan(scales[~whole]).sum() + np.isinf(scales[~whole]).sum() == (~whole).sum(), "NaN is hidden"


def check_add_norm(emulator: Emulator, rows: Rows) -> None:
    """The sum, and the norm of the sum as it is rounded."""
    dtype, eps, slack = rows.dtype, EPS, 2e-6
    inputs = add_norm_inputs(rows)
    y, given = inputs.pop("y"), inputs
    assert y is not None
    total, normed, _ = run_add_norm(emulator, rows)

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


def check_rounding_of_the_sink(emulator: Emulator) -> None:
    """With alpha = 1 a sink of e4m3 is its master, rounded; and every byte is read as what it means."""
    given = every_tie()
    given = np.append(given, np.zeros(-len(given) % 64, np.float32)).reshape(1, 1, -1, 64)
    tokens = given.shape[2]
    master = place(given)
    cache = aligned((1, 1, 2 * tokens, 64), np.uint8)
    tensors = {"keys": cache.copy(), "values": cache, "key_master": master.copy(), "value_master": master}
    tensors = {name: place(x) for name, x in tensors.items()}
    tensors |= {"slot": place(np.array(1)), "turn": angles(np.random.default_rng(0), (0,))}
    emulator.run("ema_sink_update", "e4m3", **tensors, tokens=tokens, alpha=1.0)
    assert np.array_equal(tensors["values"][:, :, :tokens], to_bits(given, "e4m3")), (
        "a float is rounded wrong"
    )
    assert np.array_equal(tensors["value_master"], given), "the master changed"
    bytes_ = np.resize(np.delete(np.arange(256), [127, 255]), given.shape).astype(np.uint8)
    tensors["values"][:, :, tokens:] = bytes_
    emulator.run("ema_sink_update", "e4m3", **tensors, tokens=tokens, alpha=0.0)
    assert np.array_equal(tensors["value_master"], from_bits(bytes_, "e4m3")), "a byte is read wrong"


def check_norm_rope_append(emulator: Emulator, sizes: Sizes, slot: int, fused: bool) -> None:
    """Queries, and keys and values in their slot; everything else in the cache is untouched."""
    rng = np.random.default_rng(8)
    dtype, cache_dtype, tokens, eps = sizes.dtype, sizes.cache_dtype, sizes.tokens, 0.3
    shape = (sizes.batch, tokens, sizes.heads * sizes.head_dim)
    if fused:
        q, k, v = np.split(draw(rng, (*shape[:2], 3 * shape[2]), dtype), 3, -1)
    else:
        q, k, v = (draw(rng, shape, dtype) for _ in range(3))
    norms = [draw(rng, shape[2:], dtype) for _ in range(2)]
    rope = angles(rng, (tokens, sizes.head_dim // 2))
    keys, values = (draw(rng, sizes.cache, cache_dtype) for _ in range(2))
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
                got = from_bits(cache[:, :, inside], cache_dtype)
                expect_close("k", got, expected(k, norms[1]), 0.52, cache_dtype)
            else:
                given = heads_first(v if cache_dtype == dtype else to_bits(from_bits(v, dtype), cache_dtype))
                assert np.array_equal(cache[:, :, inside], given), "v is not what was given"
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
    dtype, cache_dtype = sizes.dtype, sizes.cache_dtype
    op, limit = ("ring_attention_e4m3", 0.025) if cache_dtype == "e4m3" else ("ring_attention", 3e-3)
    q = place(to_bits(spread * rng.standard_normal((*sizes.cache[:2], queries, sizes.head_dim)), dtype))
    keys, values = (draw(rng, sizes.cache, cache_dtype) for _ in range(2))
    rounded_q = to_bits(from_bits(q, dtype), cache_dtype)
    seen = (rounded_q, keys[:, :, :length], values[:, :, :length])
    expected = attention(*(from_bits(x, cache_dtype) for x in seen))
    keys[:, :, length:] = values[:, :, length:] = POISON & np.iinfo(keys.dtype).max
    out = aligned((sizes.batch, queries, sizes.heads * sizes.head_dim), np.uint16, POISON)
    emulator.counters()
    emulator.run(op, dtype, q=q, keys=keys, values=values, length=length, out=out)
    conflicts = emulator.counters().bank_conflicts
    assert conflicts == 0, f"{conflicts} bank conflicts"
    error = rel_l2(from_bits(out, dtype), expected)
    assert error <= limit, f"out is {error:.3g} off"
    return error


def check_kernel(emulator: Emulator, kernel: str) -> None:
    """The combined check of a kernel: few and small shapes, every schedule and copy mode."""
    for schedule, copy_mode in EVERY_SCHEDULE:
        emulator.configure(schedule, copy_mode)
        if kernel == "ring_attention_e4m3":
            sizes = Sizes(slots=15, tokens=10, stored="e4m3")
            check_ring_attention(emulator, sizes, queries=37, length=131)
            continue
        if kernel == "ring_attention":
            check_ring_attention(emulator, Sizes(slots=15, tokens=10), queries=37, length=131)
            continue
        if copy_mode:
            continue  # the others copy nothing in the background
        if kernel == "add_norm":
            check_add_norm(emulator, Rows(33, 96, ("bias", "weight"), rms=True, silu=True))
            check_add_norm(emulator, Rows(18, 384))
            check_add_norm_e4m3(emulator, Rows(33, 96))
            check_add_norm_e4m3(emulator, Rows(18, 384, dtype="fp16"))
        elif kernel == "quantise_rows":
            check_quantise_rows(emulator, 6, 1544)
            check_quantise_rows(emulator, 5, 5000, "fp16")
        elif kernel == "ema_sink_update":
            check_ema_sink_update(emulator, Sizes(), slot=2, pairs=12)
            check_ema_sink_update(emulator, Sizes(head_dim=128, tokens=3, dtype="fp16"), slot=1, pairs=21)
            check_ema_sink_update(emulator, Sizes(tokens=3, dtype="e4m3"), slot=2, pairs=12)
        else:
            check_norm_rope_append(emulator, Sizes(heads=5), slot=1, fused=True)
            check_norm_rope_append(emulator, Sizes(head_dim=128, dtype="fp16"), slot=2, fused=False)
            check_norm_rope_append(emulator, Sizes(heads=3, stored="e4m3"), slot=1, fused=True)
    if kernel == "add_norm":
        check_add_norm(emulator, Rows(5, 1536, dtype="fp16"))
        check_add_norm(emulator, Rows(5, 5120, ("residual", "weight", "shift")))
        check_add_norm(emulator, Rows(9, 200, ("residual", "bias"), dtype="fp16"))
        check_add_norm(emulator, Rows(70, 128, ("weight",)))
        check_add_norm_e4m3(emulator, Rows(9, 200, ("weight", "shift"), rms=True, silu=True))
        check_add_norm_e4m3(emulator, Rows(5, 1536))
        check_add_norm_e4m3(emulator, Rows(5, 5112, dtype="fp16"))
    elif kernel == "quantise_rows":
        check_quantise_rows(emulator, 4, 8960)
        check_quantise_rows(emulator, 5, 13824, "fp16")
        check_quantise_rows(emulator, 1, 8)
    elif kernel == "ema_sink_update":
        for slot in (-1, 3):
            check_ema_sink_update(emulator, Sizes(), slot=slot, pairs=12)
        check_rounding_of_the_sink(emulator)
    elif kernel == "norm_rope_append":
        for slot in (-1, 3):
            check_norm_rope_append(emulator, Sizes(), slot=slot, fused=True)
        check_norm_rope_append(
            emulator, Sizes(head_dim=128, dtype="fp16", stored="e4m3"), slot=2, fused=False
        )
    else:
        stored = "e4m3" if kernel == "ring_attention_e4m3" else ""
        sizes = Sizes(batch=1, slots=4, dtype="fp16", stored=stored)
        check_ring_attention(emulator, sizes, queries=5, length=9, spread=8)
        sizes = Sizes(batch=1, heads=3, slots=11, tokens=10, head_dim=128, stored=stored)
        check_ring_attention(emulator, sizes, queries=140, length=101)


if __name__ == "__main__":
    loaded = Emulator(Path(sys.argv[1]))
    for name in sys.argv[2:] or KERNELS:
        try:
            check_kernel(loaded, name)
        except (AssertionError, RuntimeError) as error:
            sys.exit(f"{name}: {error}")
