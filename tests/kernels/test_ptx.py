"""The kernels as nvcc compiles them, run by the PTX interpreter, against float64.

What only real code generation can show: the inline asm, its operands' order, the layout of fragments.
"""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.dtypes import name_of
from pyrf.kernels.instances import ELEMENTS, KERNELS, SIZES
from pyrf.kernels.nvcc import SOURCES, compile_kernel, find_nvcc
from pyrf.ops.ema_sink_update import join_bits, split_bits
from pyrf.ops.norm_rope_append import norm_rotate
from tests.kernels.ptx import parse
from tests.kernels.ptx_ops import PtxOps

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc, which is not here")

DTYPES = (torch.bfloat16, torch.float16)
HEAD_DIMS = (64, 128)
CASES = list(product(DTYPES, HEAD_DIMS))
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Half a unit in the last place, relative."""


@pytest.fixture(scope="module")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The PTX of each kernel for sm_90a."""
    folder: Path = tmp_path_factory.mktemp("ptx")
    texts = {}
    for kernel in KERNELS:
        compile_kernel(SOURCES / f"{kernel}.cu", folder / kernel, ["90a"], ptx=True)
        texts[kernel] = (folder / kernel).read_text()
    return texts


def ops_of(text: str, dtype: torch.dtype, size: int) -> PtxOps:
    """The instance for one of the kernel's `SIZES`."""
    element = {name: key for key, name in ELEMENTS.items()}[name_of(dtype)]
    return PtxOps(parse(text, f"INS_4{element}ELi{size}E"))


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected).norm() / expected.norm()).item()


def table(rows: int, pairs: int, seed: int) -> Tensor:
    """Cosines and sines, [rows, pairs, 2]."""
    angles = 3 * draw(rows, pairs, seed=seed)
    return torch.stack((angles.cos(), angles.sin()), -1)


# Attention


class Attention:
    """Inputs of a small ring_attention; what no key may be read from is NaN, and q is a transposed view."""

    def __init__(self, dtype: torch.dtype, head_dim: int, queries: int, length: int, heads: int = 2) -> None:
        self.length = length
        self.q = draw(1, queries, heads, head_dim, seed=0, dtype=dtype).transpose(1, 2)
        self.keys, self.values = (
            draw(1, heads, length + 70, head_dim, seed=seed, dtype=dtype) for seed in (1, 2)
        )
        self.keys[:, :, length:] = self.values[:, :, length:] = math.nan

    def error(self, ops: PtxOps) -> float:
        got = ops.ring_attention(self.q, self.keys, self.values, self.length)
        keys, values = (x[:, :, : self.length].double() for x in (self.keys, self.values))
        expected = F.scaled_dot_product_attention(self.q.double(), keys, values)
        return relative_error(got, expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("dtype", "head_dim"), CASES)
def test_ring_attention(ptx: dict[str, str], dtype: torch.dtype, head_dim: int) -> None:
    """Three tiles of keys and two of queries, both with tails; fewer keys than a tile; whole tiles."""
    ops = ops_of(ptx["ring_attention"], dtype, head_dim)
    limit = 0.75 * ROUNDING[dtype]
    for queries, length in ((150, 150), (20, 40), (128, 128)):
        error = Attention(dtype, head_dim, queries, length).error(ops)
        print(f"{length} keys: {error:.2g}")
        assert error < limit, (queries, length)


# Norm, rotation and append


Inputs = dict[str, Tensor]


def append_inputs(dtype: torch.dtype, head_dim: int, heads: int, tokens: int, batch: int) -> Inputs:
    """q, k and v are views of one fused product; the cache is NaN."""
    dim = heads * head_dim
    q, k, v = draw(batch, tokens, 3 * dim, seed=0, dtype=dtype).chunk(3, -1)
    weights = [(1 + 0.1 * draw(dim, seed=seed)).to(dtype) for seed in (1, 2)]
    keys = torch.full((batch, heads, 3 * tokens, head_dim), math.nan, dtype=dtype)
    inputs = {"q": q, "k": k, "v": v, "norm_q": weights[0], "norm_k": weights[1]}
    return inputs | {"rope": table(tokens, head_dim // 2, 3), "keys": keys, "values": keys.clone()}


def append(ops: PtxOps, inputs: Inputs, slot: int) -> Tensor:
    return ops.norm_rope_append(**inputs, eps=1e-6, slot=torch.tensor(slot))


def check_append(ops: PtxOps, inputs: Inputs) -> None:
    q, keys, values = append(ops, inputs, slot=1), inputs["keys"], inputs["values"]
    tokens, head_dim = q.shape[2], q.shape[3]
    inside = slice(tokens, 2 * tokens)
    wide = {name: x.double() for name, x in inputs.items()}
    rtol, atol = 1.01 * ROUNDING[q.dtype], 1e-5
    for got, x, weight in ((q, "q", "norm_q"), (keys[:, :, inside], "k", "norm_k")):
        expected = norm_rotate(wide[x], wide[weight], 1e-6, wide["rope"])
        print(f"{x}: {relative_error(got, expected):.2g}")
        torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=atol)
    assert torch.equal(values[:, :, inside], inputs["v"].unflatten(-1, (-1, head_dim)).transpose(1, 2))
    for cache in (keys, values):
        assert cache[:, :, :tokens].isnan().all()
        assert cache[:, :, 2 * tokens :].isnan().all()


@pytest.mark.parametrize(("dtype", "head_dim"), CASES)
def test_norm_rope_append(ptx: dict[str, str], dtype: torch.dtype, head_dim: int) -> None:
    """One warp only in part at work, several warps, and the widest model."""
    ops = ops_of(ptx["norm_rope_append"], dtype, head_dim)
    for heads, tokens, batch in ((1, 5, 2), (3, 7, 2), (5120 // head_dim, 2, 1)):
        check_append(ops, append_inputs(dtype, head_dim, heads, tokens, batch))


@pytest.mark.parametrize("slot", [-1, 3])
def test_a_slot_outside_the_cache_is_not_written(ptx: dict[str, str], slot: int) -> None:
    inputs = append_inputs(torch.bfloat16, 64, heads=3, tokens=4, batch=1)
    q = append(ops_of(ptx["norm_rope_append"], torch.bfloat16, 64), inputs, slot)
    assert q.isfinite().all()
    assert inputs["keys"].isnan().all()
    assert inputs["values"].isnan().all()
    sink = Sink(torch.bfloat16, 64)
    before = [x.clone() for x in sink.tensors]
    sink.update(ops_of(ptx["ema_sink_update"], torch.bfloat16, 64), slot)
    for x, old in zip(sink.tensors, before):
        assert torch.equal(x.view(torch.int16), old.view(torch.int16))


# Sums and norms


class Rows:
    """Inputs of a small add_norm, all of them or without residual and gate."""

    def __init__(self, dtype: torch.dtype, rows: int, dim: int, *, adds: bool = True) -> None:
        self.y = draw(rows, dim, seed=0, dtype=dtype)
        self.residual = draw(rows, dim, seed=1, dtype=dtype) if adds else None
        self.gate = draw(dim, seed=2, dtype=dtype) if adds else None
        self.bias, self.weight, self.shift = (draw(dim, seed=seed, dtype=dtype) for seed in (3, 4, 5))

    def check(self, ops: PtxOps, *, rms: bool, silu: bool) -> None:
        vectors = (self.gate, self.bias, self.weight, self.shift)
        got = ops.add_norm(self.y, self.residual, *vectors, 1e-6, rms, silu)
        total = self.y.double() * (1 if self.gate is None else self.gate.double()) + self.bias.double()
        rtol, atol = 1.01 * ROUNDING[self.y.dtype], 1e-5
        if self.residual is not None:
            total = total + self.residual.double()
            print(f"sum: {relative_error(got[0], total):.2g}")
            torch.testing.assert_close(got[0].double(), total, rtol=rtol, atol=atol)
        total = total.to(self.y.dtype).double() if self.residual is None else got[0].double()
        norm = F.rms_norm(total, total.shape[1:], eps=1e-6) if rms else F.layer_norm(total, total.shape[1:])
        expected = norm * self.weight.double() + self.shift.double()
        expected = F.silu(expected) if silu else expected
        print(f"normed: {relative_error(got[-1], expected):.2g}")
        torch.testing.assert_close(got[-1].double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("size", SIZES["add_norm"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_add_norm(ptx: dict[str, str], dtype: torch.dtype, size: int) -> None:
    """Every instance with whole rows and with tails, of rows too."""
    ops = ops_of(ptx["add_norm"], dtype, size)
    Rows(dtype, 5, size).check(ops, rms=False, silu=False)
    Rows(dtype, 3, size - 24, adds=False).check(ops, rms=True, silu=True)


# The sink


class Sink:
    """A cache of three slots whose sink has a random float32 behind it, and NaN in the slot not evicted."""

    def __init__(self, dtype: torch.dtype, head_dim: int, tokens: int = 37) -> None:
        self.tokens, self.alpha = tokens, 0.9
        self.exact = [draw(2, 2, tokens, head_dim, seed=seed) for seed in (0, 1)]
        caches = [draw(2, 2, 3 * tokens, head_dim, seed=seed, dtype=dtype) for seed in (2, 3)]
        masters = []
        for cache, exact in zip(caches, self.exact):
            high, low = split_bits(exact)
            masters.append(low if dtype == torch.bfloat16 else exact.clone())
            cache[:, :, :tokens] = high if dtype == torch.bfloat16 else exact
            cache[:, :, tokens : 2 * tokens] = math.nan
        self.tensors = [*caches, *masters]
        self.turn = table(1, head_dim // 2 - 2 * (head_dim // 6), 4)[0]

    def update(self, ops: PtxOps, slot: int = 2) -> None:
        keys, values, key_master, value_master = self.tensors
        slot_index = torch.tensor(slot)
        ops.ema_sink_update(
            keys, values, key_master, value_master, slot_index, self.turn, self.tokens, self.alpha
        )

    def expected(self) -> list[Tensor]:
        """The new sinks, by float64."""
        turned = self.exact[0].double()
        pairs = torch.view_as_complex(turned.unflatten(-1, (-1, 2)))
        pairs[..., : len(self.turn)] *= torch.view_as_complex(self.turn.double())
        turned = torch.view_as_real(pairs).flatten(-2)
        evicted = [cache[:, :, 2 * self.tokens :].double() for cache in self.tensors[:2]]
        old = [turned, self.exact[1].double()]
        return [self.alpha * sink + (1 - self.alpha) * leaving for sink, leaving in zip(old, evicted)]


@pytest.mark.parametrize(("dtype", "head_dim"), CASES)
def test_ema_sink_update(ptx: dict[str, str], dtype: torch.dtype, head_dim: int) -> None:
    sink = Sink(dtype, head_dim)
    expected = sink.expected()
    others = [cache[:, :, sink.tokens :].clone() for cache in sink.tensors[:2]]
    sink.update(ops_of(ptx["ema_sink_update"], dtype, head_dim))
    for i, (cache, master) in enumerate(zip(sink.tensors[:2], sink.tensors[2:])):
        slot = cache[:, :, : sink.tokens]
        exact = join_bits(slot, master) if dtype == torch.bfloat16 else master
        print(f"master: {(exact.double() - expected[i]).abs().max():.2g}")
        torch.testing.assert_close(exact.double(), expected[i], rtol=1e-6, atol=1e-6)
        rounded = split_bits(exact)[0] if dtype == torch.bfloat16 else exact.half()
        assert torch.equal(slot, rounded)
        assert torch.equal(cache[:, :, sink.tokens :].view(torch.int16), others[i].view(torch.int16))


# What the checks above are worth: each of these faults, put into the PTX, must show.

Fault = tuple[str, str, str]
"""A name, and a pattern in the PTX with what takes its place."""

MMA = r"(mma\S+\s+\{[^}]*\},\s*\{)(%r\d+), (%r\d+), (%r\d+), (%r\d+)(\},\s*\{)(%r\d+), (%r\d+)(\})"
SHUFFLE = r"shfl\.sync\.bfly\.b32\s+(%r\d+)\|%p\d+, (%r\d+), [^;]*"
PACK = r"(cvt\.rn\.b?f16x2\.f32\s+%\w+), (%f\d+), (%f\d+)"
ATTENTION_FAULTS: list[Fault] = [
    ("the halves of B swapped", MMA, r"\1\2, \3, \4, \5\6\8, \7\9"),
    ("the quarters of A swapped", MMA, r"\1\2, \4, \3, \5\6\7, \8\9"),
    ("float16 for bfloat16", r"f32\.bf16\.bf16\.f32", "f32.f16.f16.f32"),
    ("a missing .trans", r"x4\.trans", "x4"),
    ("a .trans too many", r"x4\.shared", "x4.trans.shared"),
    ("a swapped pack", PACK, r"\1, \3, \2"),
    ("packed as float16", r"cvt\.rn\.bf16x2\.f32", "cvt.rn.f16x2.f32"),
    ("a wait for one group less", r"cp\.async\.wait_group \d", "cp.async.wait_group 1"),
    ("a square root for the exponential", r"ex2\.approx\.ftz\.f32", "sqrt.approx.ftz.f32"),
    ("nothing passed between lanes", SHUFFLE, r"mov.b32 \1, \2"),
]


def altered(text: str, fault: Fault) -> str:
    """The PTX with a fault put in wherever it can be."""
    changed, count = re.subn(fault[1], fault[2], text)
    assert count, f"nothing to alter: {fault[0]}"
    return changed


@pytest.mark.parametrize("fault", ATTENTION_FAULTS, ids=[fault[0] for fault in ATTENTION_FAULTS])
def test_faults_in_attention_show(ptx: dict[str, str], fault: Fault) -> None:
    text = altered(ptx["ring_attention"], fault)
    inputs = Attention(torch.bfloat16, 64, queries=20, length=150, heads=1)
    error = inputs.error(ops_of(text, torch.bfloat16, 64))
    assert not error < 0.75 * ROUNDING[torch.bfloat16]  # NaN is an error too


ROWS_FAULTS: list[Fault] = [
    ("a swapped pack", PACK, r"\1, \3, \2"),
    ("nothing passed between lanes", SHUFFLE, r"mov.b32 \1, \2"),
    ("a square root for its inverse", r"rsqrt\.approx", "sqrt.approx"),
    ("a square root for the exponential", r"ex2\.approx", "sqrt.approx"),
    ("a square root for the reciprocal", r"rcp\.approx", "sqrt.approx"),
]


@pytest.mark.parametrize("fault", ROWS_FAULTS, ids=[fault[0] for fault in ROWS_FAULTS])
def test_faults_in_sums_and_norms_show(ptx: dict[str, str], fault: Fault) -> None:
    ops = ops_of(altered(ptx["add_norm"], fault), torch.bfloat16, 256)
    with pytest.raises(AssertionError):
        Rows(torch.bfloat16, 5, 192).check(ops, rms=True, silu=True)


APPEND_FAULTS: list[Fault] = [
    ("a swapped pack", PACK, r"\1, \3, \2"),
    ("nothing passed between lanes", SHUFFLE, r"mov.b32 \1, \2"),
    ("a square root for its inverse", r"rsqrt\.approx", "sqrt.approx"),
]


@pytest.mark.parametrize("fault", APPEND_FAULTS, ids=[fault[0] for fault in APPEND_FAULTS])
def test_faults_in_norm_show(ptx: dict[str, str], fault: Fault) -> None:
    ops = ops_of(altered(ptx["norm_rope_append"], fault), torch.bfloat16, 64)
    with pytest.raises(AssertionError):
        check_append(ops, append_inputs(torch.bfloat16, 64, heads=5, tokens=3, batch=1))


def test_a_swapped_pack_in_the_sink_shows(ptx: dict[str, str]) -> None:
    sink = Sink(torch.float16, 64)
    fault = ("a swapped pack", PACK, r"\1, \3, \2")
    sink.update(ops_of(altered(ptx["ema_sink_update"], fault), torch.float16, 64))
    assert not torch.equal(sink.tensors[0][:, :, : sink.tokens], sink.tensors[2].half())
