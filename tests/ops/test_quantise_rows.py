"""Rows to e4m3: plain torch, the kernels' path, norms that give them, tracing, and refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from pyrf.models.dit.fp8_linear import Fp8Linear
from pyrf.ops import (
    add_norm,
    add_norm_e4m3,
    bias_norm,
    bias_norm_e4m3,
    gelu,
    native,
    quantise_rows,
)
from pyrf.ops.e4m3 import E4M3, plain_quantise_rows
from tests.support.emulated_native import cpu_tensors_take_the_cuda_path
from tests.support.op_arguments import draw

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
HALF = (torch.bfloat16, torch.float16)


def same(got, expected):
    return torch.equal(got.scales, expected.scales) and torch.equal(
        got.rows.view(torch.uint8), expected.rows.view(torch.uint8)
    )


def inputs(dtype, dim=96):
    y, residual = (draw(2, 3, dim, dtype=dtype, seed=seed) for seed in (0, 1))
    gate, weight, shift = (draw(dim, dtype=dtype, seed=seed) for seed in (2, 3, 4))
    return y, residual, weight, {"gate": gate, "shift": shift, "eps": 1e-6}


def check_all(dtype):
    """What each op gives is what two passes give, to the bit."""
    x = 3 * draw(2, 3, 96, dtype=dtype)
    x[0, 1] = 0
    got = quantise_rows(x)
    assert (got.rows.dtype, got.scales.dtype, got.shape) == (E4M3, torch.float32, x.shape)
    assert same(got, plain_quantise_rows(x))
    y, residual, weight, settings = inputs(dtype)
    total, normed = add_norm(y, residual, weight, **settings)
    same_total, narrow = add_norm_e4m3(y, residual, weight, **settings)
    assert torch.equal(total, same_total)
    assert same(narrow, plain_quantise_rows(normed))
    alone = bias_norm(y, weight, eps=1e-6, rms=True, silu=True)
    assert same(bias_norm_e4m3(y, weight, eps=1e-6, rms=True, silu=True), plain_quantise_rows(alone))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_pass_has_the_bits_of_two(dtype):
    check_all(dtype)
    x = draw(2, 3, 96, dtype=dtype)
    with torch.no_grad():
        assert same(quantise_rows(x, gelu=True), plain_quantise_rows(gelu.gelu_tanh(x)))


@pytest.fixture
def emulated(emulator, monkeypatch):
    """Ops on CPU tensors run the CUDA path on emulated kernels."""
    emulator.calls.clear()
    with cpu_tensors_take_the_cuda_path(monkeypatch, emulator):
        yield emulator


@pytest.mark.parametrize("dtype", HALF)
def test_the_kernels_have_the_bits_of_torch(dtype, emulated):
    check_all(dtype)
    assert emulated.calls == ["quantise_rows", *4 * ["add_norm"]]
    x = draw(2, 3, 96, dtype=dtype)
    rows, scales = quantise_rows(x, gelu=True)
    exact = F.gelu(x.double(), approximate="tanh")
    assert ((rows.double() * scales - exact).abs() <= 0.07 * exact.abs() + 1e-5).all()


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.float32, (2, 96)),
        (torch.bfloat16, (2, 100)),
        (torch.bfloat16, (1, 14344)),
        (torch.half, (0, 96)),
    ],
)
def test_what_the_kernel_does_not_serve_is_plain_torch(dtype, shape, emulated):
    x = draw(*shape, dtype=dtype)
    assert same(quantise_rows(x), plain_quantise_rows(x))
    assert not emulated.calls


@pytest.mark.skipif(not native.kernels, reason="the native module is built without CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CPU tensors must not reach a GPU")
def test_the_native_module_takes_what_the_ops_give(monkeypatch):
    y, residual, weight, settings = inputs(torch.bfloat16)
    with cpu_tensors_take_the_cuda_path(monkeypatch, native.kernels):
        with pytest.raises(RuntimeError, match="cuda"):
            quantise_rows(y)
        with pytest.raises(RuntimeError, match="cuda"):
            add_norm_e4m3(y, residual, weight, **settings)


def test_traces():
    """torch compares no e4m3, which its other checks would."""
    y, residual, weight, _ = inputs(torch.bfloat16)
    opcheck(torch.ops.pyrf.quantise_rows.default, (y, True), test_utils=("test_schema", "test_faketensor"))
    arguments = (y, residual, None, None, weight, None, 1e-6, False, False)
    opcheck(torch.ops.pyrf.add_norm_e4m3.default, arguments, test_utils=("test_faketensor",))
    with FakeTensorMode():
        rows, scales = quantise_rows(torch.empty(2, 5, 96, dtype=torch.bfloat16, device="cuda"))
    assert (rows.shape, rows.dtype, scales.shape) == ((2, 5, 96), E4M3, (2, 5, 1))


def test_refusals():
    x = draw(4, 96)
    with pytest.raises(ValueError, match=r"x must be \[..., D\] of a float dtype, got \[4, 96\] torch.int32"):
        quantise_rows(x.int())
    with pytest.raises(ValueError, match="x must be contiguous"):
        quantise_rows(x.T)
    with pytest.raises(ValueError, match="weight must be given: it is what is normed that becomes e4m3"):
        torch.ops.pyrf.add_norm_e4m3(x, x, None, None, None, None, 0.0, False, False)


def test_a_linear_takes_rows_that_are_rounded_already():
    linear = nn.Linear(96, 48)
    ours, x = Fp8Linear(linear), draw(2, 5, 96)
    with torch.inference_mode():
        assert torch.equal(ours(x), ours(quantise_rows(x)))
        assert torch.equal(ours(x.transpose(0, 1)), ours(x).transpose(0, 1))
