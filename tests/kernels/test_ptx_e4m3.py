"""The kernels of e4m3, as nvcc compiles them, run by the PTX interpreter.

Those that write a cache of it, and those that give rows of it, for sm_90a, which rounds by an instruction,
and for sm_80, which has none; attention for sm_89, the first with products of e4m3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.kernels.instances import SIZES
from pyrf.kernels.nvcc import SOURCES, compile_kernel, find_nvcc
from pyrf.ops.e4m3 import E4M3, QuantisedRows, plain_quantise_rows, to_e4m3, widened
from pyrf.ops.norm_rope_append import norm_rotate
from tests.kernels.numbers import every_tie
from tests.kernels.ptx import parse
from tests.kernels.ptx_ops import PtxOps
from tests.kernels.test_ptx import (
    MMA,
    SHUFFLE,
    Attention,
    Fault,
    Inputs,
    Sink,
    altered,
    append,
    append_inputs,
    draw,
    relative_error,
)

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc, which is not here")

Texts = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> Texts:
    """The PTX by kernel and architecture."""
    folder: Path = tmp_path_factory.mktemp("ptx")
    texts = {}
    compiled = [
        *product(("norm_rope_append", "ema_sink_update", "add_norm", "quantise_rows"), ("80", "90a")),
        ("ring_attention_e4m3", "89"),
    ]
    for kernel, arch in compiled:
        compile_kernel(SOURCES / f"{kernel}.cu", folder / kernel, [arch], ptx=True)
        texts[kernel, arch] = (folder / kernel).read_text()
    return texts


def append_ops(text: str, element: str, head_dim: int) -> PtxOps:
    return PtxOps(parse(text, f"INS_4{element}ELi{head_dim}ENS_4E4m3E"))


def in_e4m3(inputs: Inputs) -> Inputs:
    return inputs | {name: inputs[name].to(E4M3) for name in ("keys", "values")}


def check_append(ops: PtxOps, inputs: Inputs) -> None:
    """Values to the bit; keys within half a step of float64's, a hair more for their float32 sums."""
    tokens, head_dim = inputs["q"].shape[1], inputs["keys"].shape[3]
    q, inside = append(ops, inputs, slot=1), slice(tokens, 2 * tokens)
    wide = {name: x.double() for name, x in inputs.items()}
    expected = norm_rotate(wide["q"], wide["norm_q"], 1e-6, wide["rope"])
    torch.testing.assert_close(q.double(), expected, rtol=1.01 * 2.0**-8, atol=1e-5)
    exact = norm_rotate(wide["k"], wide["norm_k"], 1e-6, wide["rope"])
    keys = inputs["keys"][:, :, inside].double()
    step = 2.0 ** (exact.abs().clamp_min(2.0**-6).log2().floor() - 3)
    assert ((keys - exact).abs() <= 0.501 * step).all()
    values = to_e4m3(inputs["v"].unflatten(-1, (-1, head_dim)).transpose(1, 2))
    assert torch.equal(inputs["values"][:, :, inside].view(torch.uint8), values.view(torch.uint8))
    for name in ("keys", "values"):
        assert inputs[name][:, :, :tokens].isnan().all()
        assert inputs[name][:, :, 2 * tokens :].isnan().all()


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize(("element", "head_dim"), [("Bf16", 64), ("Bf16", 128), ("Fp16", 128)])
def test_norm_rope_append(ptx: Texts, arch: str, element: str, head_dim: int) -> None:
    dtype = {"Bf16": torch.bfloat16, "Fp16": torch.float16}[element]
    ops = append_ops(ptx["norm_rope_append", arch], element, head_dim)
    for heads, tokens, batch in ((1, 5, 2), (3, 7, 2)):
        check_append(ops, in_e4m3(append_inputs(dtype, head_dim, heads, tokens, batch)))


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize("element", ["Bf16", "Fp16"])
def test_every_number_of_16_bits_is_rounded_as_torch_does(ptx: Texts, arch: str, element: str) -> None:
    dtype = {"Bf16": torch.bfloat16, "Fp16": torch.float16}[element]
    inputs = in_e4m3(append_inputs(dtype, 64, heads=16, tokens=32, batch=2))
    inputs["v"] = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(2, 32, 1024)
    append(append_ops(ptx["norm_rope_append", arch], element, 64), inputs, slot=1)
    expected = to_e4m3(inputs["v"].unflatten(-1, (16, 64)).transpose(1, 2))
    got = inputs["values"][:, :, 32:64]
    number = ~expected.isnan()
    assert got.isnan().equal(~number)
    assert torch.equal(got.view(torch.uint8)[number], expected.view(torch.uint8)[number])


PACK = r"(cvt\.rn\.satfinite\.e4m3x2\.f32\s+%\w+), (%f\d+), (%f\d+)"
FAULTS: list[Fault] = [
    ("a swapped pack", PACK, r"\1, \3, \2"),
    ("one number twice", PACK, r"\1, \2, \2"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault[0] for fault in FAULTS])
def test_faults_in_append_show(ptx: Texts, fault: Fault) -> None:
    ops = append_ops(altered(ptx["norm_rope_append", "90a"], fault), "Bf16", 64)
    with pytest.raises(AssertionError):
        check_append(ops, in_e4m3(append_inputs(torch.bfloat16, 64, heads=2, tokens=3, batch=1)))


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_ema_sink_update(ptx: Texts, arch: str, head_dim: int) -> None:
    """The master is near float64's, and the slot is the master rounded; nothing else changes."""
    sink = Sink(torch.float16, head_dim)
    sink.tensors[:2] = [to_e4m3(cache) for cache in sink.tensors[:2]]
    expected = sink.expected()
    others = [cache[:, :, sink.tokens :].clone() for cache in sink.tensors[:2]]
    sink.update(sink_ops(ptx["ema_sink_update", arch], head_dim))
    for cache, master, exact, other in zip(sink.tensors[:2], sink.tensors[2:], expected, others):
        print(f"master: {(master.double() - exact).abs().max():.2g}")
        torch.testing.assert_close(master.double(), exact, rtol=1e-6, atol=1e-6)
        slot = cache[:, :, : sink.tokens]
        assert torch.equal(slot.view(torch.uint8), to_e4m3(master).view(torch.uint8))
        assert torch.equal(cache[:, :, sink.tokens :].view(torch.uint8), other.view(torch.uint8))


def sink_ops(text: str, head_dim: int) -> PtxOps:
    return PtxOps(parse(text, f"INS_4E4m3ELi{head_dim}E"))


@pytest.mark.parametrize("arch", ["80", "90a"])
def test_the_sink_rounds_to_nearest_even(ptx: Texts, arch: str) -> None:
    """With alpha = 1 a master stays as it is: float32 at and beside every tie."""
    given = torch.from_numpy(every_tie())
    tokens = -(-len(given) // 64)
    master = torch.ones(tokens * 64)
    master[: len(given)] = given
    masters = [master.view(1, 1, tokens, 64).clone() for _ in range(2)]
    caches = [torch.zeros(1, 1, 2 * tokens, 64).to(E4M3) for _ in range(2)]
    turn: Tensor = torch.zeros(0, 2)
    ops = sink_ops(ptx["ema_sink_update", arch], 64)
    (keys, values), (key_master, value_master), slot = caches, masters, torch.tensor(1)
    ops.ema_sink_update(keys, values, key_master, value_master, slot, turn, tokens, 1.0)
    for cache, after in zip(caches, masters):
        assert torch.equal(after.flatten(), master)
        slot = cache[:, :, :tokens].reshape(-1)
        assert torch.equal(slot.view(torch.uint8), to_e4m3(master).view(torch.uint8))


def same_rows(got: Sequence[Tensor], expected: QuantisedRows) -> None:
    """Rows and scales to the bit, but for what stands for NaN."""
    assert torch.equal(got[1].nan_to_num(-1), expected.scales.nan_to_num(-1))
    number = ~expected.rows.isnan()
    assert got[0].isnan().equal(~number)
    assert torch.equal(got[0].view(torch.uint8)[number], expected.rows.view(torch.uint8)[number])


def quantising(text: str, dtype: torch.dtype, size: int, written: str = "") -> PtxOps:
    element = {torch.bfloat16: "Bf16", torch.float16: "Fp16"}[dtype]
    return PtxOps(parse(text, f"INS_4{element}ELi{size}E{written}"))


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES["quantise_rows"])
def test_quantise_rows(ptx: Texts, size: int, dtype: torch.dtype, arch: str) -> None:
    """Rows of zeros, with NaN and with an infinity, and others; then of GELU, as near as 16 bits are."""
    ops = quantising(ptx["quantise_rows", arch], dtype, size)
    for dim in (size, size - 1000):
        x = draw(5, dim, seed=0, dtype=dtype) * torch.tensor([[3.0], [0.0], [1e-3], [1.0], [1.0]]).to(dtype)
        x[3, 8], x[4, -1] = float("nan"), float("inf")
        same_rows(ops.quantise_rows(x, False), plain_quantise_rows(x))
        rows, scales = ops.quantise_rows(x[:3], True)
        exact = F.gelu(x[:3].double(), approximate="tanh")
        error = (rows.double() * scales - exact).abs()
        assert (error <= 0.07 * exact.abs() + 2.2e-6 * exact.abs().amax(-1, keepdim=True) + 4e-8).all()


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_16_bits_is_scaled_as_torch_does(ptx: Texts, dtype: torch.dtype, arch: str) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    x = every[every.isfinite()].view(-1, 256)
    x = torch.cat((x, x.abs().amax(-1, keepdim=True).expand(-1, 8)), -1).contiguous()
    same_rows(
        quantising(ptx["quantise_rows", arch], dtype, 2048).quantise_rows(x, False), plain_quantise_rows(x)
    )


def check_add_norm_e4m3(text: str, plain_text: str, dtype: torch.dtype, size: int, dim: int) -> None:
    """In one pass the bits of two."""
    y, residual = (draw(5, dim, seed=seed, dtype=dtype) for seed in (0, 1))
    gate, bias, weight, shift = (draw(dim, seed=seed, dtype=dtype) for seed in (2, 3, 4, 5))
    given = (y, residual, gate, bias, weight, shift, 1e-6, False, False)
    ours, plain = quantising(text, dtype, size, "NS_4E4m3E"), quantising(plain_text, dtype, size, "S1_")
    total, *got = ours.add_norm(*given, quantises=True)
    expected_total, normed = plain.add_norm(*given)
    assert torch.equal(total, expected_total)
    same_rows(got, plain_quantise_rows(normed))


@pytest.mark.parametrize("arch", ["80", "90a"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES["add_norm"])
def test_add_norm(ptx: Texts, size: int, dtype: torch.dtype, arch: str) -> None:
    text = ptx["add_norm", arch]
    for dim in (size, size - 24):
        check_add_norm_e4m3(text, text, dtype, size, dim)


QUANTISE_FAULTS: list[Fault] = [
    ("a swapped pack", PACK, r"\1, \3, \2"),
    ("nothing passed between lanes", SHUFFLE, r"mov.b32 \1, \2"),
    ("the scale for its inverse", r"rcp\.rn\.f32", "mov.f32"),
    ("the smallest for the largest", r"max\.u32", "min.u32"),
]


@pytest.mark.parametrize("fault", QUANTISE_FAULTS, ids=[fault[0] for fault in QUANTISE_FAULTS])
def test_faults_in_quantise_rows_show(ptx: Texts, fault: Fault) -> None:
    ops = quantising(altered(ptx["quantise_rows", "90a"], fault), torch.bfloat16, 2048)
    x = draw(3, 1544, seed=0, dtype=torch.bfloat16)
    with pytest.raises(AssertionError):
        same_rows(ops.quantise_rows(x, False), plain_quantise_rows(x))


@pytest.mark.parametrize("fault", QUANTISE_FAULTS, ids=[fault[0] for fault in QUANTISE_FAULTS])
def test_faults_in_the_norm_in_e4m3_show(ptx: Texts, fault: Fault) -> None:
    text = ptx["add_norm", "90a"]
    with pytest.raises(AssertionError):
        check_add_norm_e4m3(altered(text, fault), text, torch.bfloat16, 256, 192)


def attention_error(ops: PtxOps, inputs: Attention) -> float:
    """Against float64 of the rounded numbers; what no key may be read from stays NaN."""
    length = inputs.length
    keys, values = to_e4m3(inputs.keys), to_e4m3(inputs.values)
    got = ops.ring_attention_e4m3(inputs.q, keys, values, length)
    wide = widened(to_e4m3(inputs.q).double(), keys, values, length)
    expected = torch.nn.functional.scaled_dot_product_attention(*wide)
    return relative_error(got, expected.transpose(1, 2).flatten(2))


ATTENTION_WITHIN = 0.025


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("element", ["Bf16", "Fp16"])
def test_ring_attention(ptx: Texts, element: str, head_dim: int) -> None:
    """Tiles of keys and of queries with tails; fewer keys than a tile; whole tiles."""
    dtype = {"Bf16": torch.bfloat16, "Fp16": torch.float16}[element]
    ops = PtxOps(parse(ptx["ring_attention_e4m3", "89"], f"INS_4{element}ELi{head_dim}E"))
    for queries, length in ((150, 150), (20, 40), (128, 128)):
        error = attention_error(ops, Attention(dtype, head_dim, queries, length))
        print(f"{length} keys: {error:.2g}")
        assert error < ATTENTION_WITHIN, (queries, length)


PERMUTE = r"(prmt\.b32\s+%r\d+), (%r\d+), (%r\d+), "
ATTENTION_FAULTS: list[Fault] = [
    ("the halves of B swapped", MMA, r"\1\2, \3, \4, \5\6\8, \7\9"),
    ("the quarters of A swapped", MMA, r"\1\2, \4, \3, \5\6\7, \8\9"),
    ("a missing .trans", r"x4\.trans", "x4"),
    ("a .trans too many", r"x4\.shared", "x4.trans.shared"),
    ("a swapped pack", PACK, r"\1, \3, \2"),
    ("a swapped permutation", PERMUTE, r"\1, \3, \2, "),
    ("even channels for odd ones", r"(mov\.[bu]32\s+%r\d+), 30001;", r"\1, 25632;"),
    ("a wait for one group less", r"cp\.async\.wait_group \d", "cp.async.wait_group 1"),
    ("a square root for the exponential", r"ex2\.approx\.ftz\.f32", "sqrt.approx.ftz.f32"),
]


@pytest.mark.parametrize("fault", ATTENTION_FAULTS, ids=[fault[0] for fault in ATTENTION_FAULTS])
def test_faults_in_attention_show(ptx: Texts, fault: Fault) -> None:
    text = altered(ptx["ring_attention_e4m3", "89"], fault)
    inputs = Attention(torch.bfloat16, 64, queries=20, length=150, heads=1)
    error = attention_error(PtxOps(parse(text, "INS_4Bf16ELi64E")), inputs)
    assert not error < ATTENTION_WITHIN  # NaN is an error too
