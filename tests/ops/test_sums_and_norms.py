"""Sums and norms of rows: the op against plain formulae and its kernel, opcheck, torch.compile, refusals."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from pyrf.models.codecs.wan_vae import WanVAE
from pyrf.ops import add_norm, bias_norm, gated_sum, native
from tests.support.emulated_native import RUN_CUDA, cpu_tensors_take_the_cuda_path
from tests.support.golden_vae import golden, golden_codec
from tests.support.op_arguments import draw

OP = torch.ops.pyrf.add_norm.default
SHAPE = (2, 3, 24)
NAMES = ("y", "residual", "gate", "bias", "weight", "shift")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 0.04, torch.float16: 0.005}
FORMS = [
    given
    for bits in product((False, True), repeat=5)
    for given in [("y", *(name for name, has in zip(NAMES[1:], bits) if has))]
    if "weight" in given or ("residual" in given and "shift" not in given)
]
"""What may be given together."""


def tensors(dtype=torch.float32, given=NAMES, shape=SHAPE):
    """By name, in the op's order; None for what is not given."""
    found: dict[str, Any] = dict.fromkeys(NAMES)
    for seed, name in enumerate(NAMES):
        if name in given:
            found[name] = draw(*(shape if seed < 2 else shape[-1:]), dtype=dtype, seed=seed)
    return found


def formula(given, eps, rms, silu):
    """In float64 but for the rounding of the sum: what the op returns."""
    dtype = given["y"].dtype
    x: dict[str, Any] = {name: None if x is None else x.double() for name, x in given.items()}
    total = x["y"] if x["gate"] is None else x["y"] * x["gate"]
    for name in ("bias", "residual"):
        total = total if x[name] is None else total + x[name]
    found = [] if x["residual"] is None else [total]
    if x["weight"] is None:
        return found
    rounded = total.to(dtype).double()
    centred = rounded if rms else rounded - rounded.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * x["weight"]
    normed = normed if x["shift"] is None else normed + x["shift"]
    return [*found, normed * normed.sigmoid() if silu else normed]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", FORMS, ids=" ".join)
def test_the_formula(given, dtype):
    inputs = tensors(dtype, given)
    for rms, silu in product((False, True), repeat=2):
        got = OP(*inputs.values(), 1e-3, rms, silu)
        expected = formula(inputs, 1e-3, rms, silu)
        assert len(got) == len(expected)
        for ours, exact in zip(got, expected):
            assert (ours.shape, ours.dtype, ours.is_contiguous()) == (SHAPE, dtype, True)
            torch.testing.assert_close(ours.double(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_the_functions_are_parts_of_one():
    x = tensors()
    settings: dict[str, Any] = {"eps": 1e-3, "rms": True, "silu": True}
    total, normed = add_norm(**x, **settings)
    assert torch.equal(gated_sum(x["y"], x["residual"], gate=x["gate"], bias=x["bias"]), total)
    assert torch.equal(bias_norm(total, x["weight"], shift=x["shift"], **settings), normed)
    biased = bias_norm(x["y"], x["weight"], bias=x["bias"], **settings)
    assert torch.equal(biased, bias_norm(x["y"] + x["bias"], x["weight"], **settings))


def test_plain_torch_is_torchs_own_functions():
    x = tensors(torch.float64)
    total, normed = add_norm(x["y"], x["residual"], x["weight"], shift=x["shift"], eps=1e-6)
    assert torch.equal(total, x["residual"] + x["y"])
    assert torch.equal(normed, F.layer_norm(total, SHAPE[-1:], x["weight"], x["shift"], 1e-6))
    activated = bias_norm(x["y"], x["weight"], eps=1e-12, rms=True, silu=True)
    assert torch.equal(activated, F.silu(F.rms_norm(x["y"], SHAPE[-1:], x["weight"], 1e-12)))


@pytest.mark.parametrize("given", [NAMES, NAMES[:4], ("y", "weight"), ("y", "bias", "weight", "shift")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(dtype, given):
    opcheck(OP, (*tensors(dtype, given).values(), 1e-6, True, True))


def test_compiles_whole():
    def around(y, residual, gate, bias, weight, shift):
        total, normed = add_norm(y * 2, residual, weight, gate=gate, bias=bias, shift=shift, eps=1e-6)
        alone = bias_norm(normed, weight, bias=bias, eps=1e-6, rms=True, silu=True)
        return gated_sum(alone, total, gate=gate) + 1, normed

    compiled = torch.compile(around, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors().values()), around(*tensors().values()))


BAD = [
    ("y", lambda y: y.int(), r"y must be \[..., D\] of a float dtype, got \[2, 3, 24\] torch.int32"),
    ("y", lambda y: y.mT, "y must be contiguous"),
    ("y", lambda y: y[..., :-2], "y must be contiguous"),
    ("residual", lambda x: x[:1], r"residual must be \[2, 3, 24\] .*, got \[1, 3, 24\]"),
    ("residual", lambda x: x.transpose(0, 1).contiguous().transpose(0, 1), "residual must be contiguous"),
    ("residual", lambda x: x.double(), "residual must be .*float32.*, got .*float64"),
    ("gate", lambda x: x[:-1], "gate must be"),
    ("gate", lambda x: torch.stack((x, x), -1)[:, 0], "gate must be contiguous"),
    ("bias", lambda x: x[None], "bias must be"),
    ("weight", lambda x: x.half(), "weight must be"),
    ("weight", lambda x: None, "shift must come with a weight"),
    ("shift", lambda x: x.to("meta"), r"shift must be .* on cpu, got .* on meta"),
]


@pytest.mark.parametrize(("name", "change", "message"), BAD)
def test_refuses(name, change, message):
    inputs = tensors()
    inputs[name] = change(inputs[name])
    with pytest.raises(ValueError, match=message):
        OP(*inputs.values(), 1e-6, False, False)


def test_refuses_to_do_nothing():
    with pytest.raises(ValueError, match="residual or weight must be given"):
        OP(*tensors(given=("y", "bias")).values(), 1e-6, False, False)


# The path of CUDA devices


@pytest.fixture
def emulated(emulator, monkeypatch):
    """The op on CPU tensors runs the CUDA path on the emulated kernel."""
    emulator.calls.clear()
    with cpu_tensors_take_the_cuda_path(monkeypatch, emulator):
        yield emulator


@pytest.mark.parametrize("dtype", DTYPES[2:])
@pytest.mark.parametrize("given", FORMS, ids=" ".join)
def test_the_kernel_is_the_formula(given, dtype, emulated):
    inputs = tensors(dtype, given)
    for rms, silu in product((False, True), repeat=2):
        got = OP(*inputs.values(), 1e-3, rms, silu)
        for ours, exact in zip(got, formula(inputs, 1e-3, rms, silu), strict=True):
            assert (ours.shape, ours.dtype, ours.is_contiguous()) == (SHAPE, dtype, True)
            torch.testing.assert_close(
                ours.double(), exact, rtol=TOLERANCE[dtype] / 4, atol=TOLERANCE[dtype] / 4
            )
    assert emulated.calls == 4 * ["add_norm"]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.float32, SHAPE),
        (torch.float64, SHAPE),
        (torch.bfloat16, (2, 3, 20)),
        (torch.bfloat16, (2, 5128)),
        (torch.float16, (0, 3, 24)),
    ],
)
def test_what_the_kernel_does_not_serve_is_plain_torch(dtype, shape, emulated):
    inputs = tensors(dtype, shape=shape)
    got = OP(*inputs.values(), 1e-6, False, True)
    assert not emulated.calls
    with pytest.MonkeyPatch.context() as context:
        context.setattr(native, "kernels", None)
        expected = OP(*inputs.values(), 1e-6, False, True)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_refuses_misaligned_tensors(name, emulated):
    inputs = tensors(torch.bfloat16)
    x = inputs[name]
    inputs[name] = torch.zeros(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape)
    with pytest.raises(ValueError, match=f"{name} must be aligned to 16 bytes"):
        OP(*inputs.values(), 1e-6, False, False)
    assert not emulated.calls


@pytest.mark.skipif(not native.kernels, reason="the native module is built without CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CPU tensors must not reach a GPU")
@pytest.mark.parametrize("given", [NAMES, NAMES[:2], ("y", "weight")])
def test_the_native_module_takes_what_the_op_gives(given, monkeypatch):
    with (
        cpu_tensors_take_the_cuda_path(monkeypatch, native.kernels),
        pytest.raises(RuntimeError, match="cuda"),
    ):
        OP(*tensors(torch.bfloat16, given).values(), 1e-6, True, False)


def on(device, inputs):
    """Empty tensors of the same kind elsewhere."""
    return {
        name: None if x is None else torch.empty(x.shape, dtype=x.dtype, device=device)
        for name, x in inputs.items()
    }


@pytest.mark.parametrize("given", FORMS, ids=" ".join)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_tracing_nor_plain_torch_waits_for_a_gpu(dtype, given, monkeypatch):
    """The op on fake CUDA tensors, and plain torch on tensors without values: reading one would raise."""
    monkeypatch.setattr(native, "kernels", None)
    inputs = tensors(dtype, given)
    with FakeTensorMode():
        traced = OP(*on("cuda", inputs).values(), 1e-6, True, True)
    plain = RUN_CUDA["add_norm"](*on("meta", inputs).values(), 1e-6, True, True)
    expected = OP(*inputs.values(), 1e-6, True, True)
    assert len(traced) == len(plain) == len(expected)
    for exact, *others in zip(expected, traced, plain):
        assert others[0].device.type == "cuda"
        for out in others:
            assert (out.shape, out.stride(), out.dtype) == (exact.shape, exact.stride(), exact.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_a_cpu_tensor_among_cuda_tensors(name, monkeypatch):
    """Before it looks for kernels."""
    monkeypatch.setattr(native, "serve_rows", lambda *_: pytest.fail("looked for kernels"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        inputs = on("cuda", tensors(torch.bfloat16))
        inputs[name] = torch.empty(inputs[name].shape, dtype=torch.bfloat16)
        with pytest.raises(ValueError, match=r"must be .*(on cuda:0, got .*on cpu|on cpu, got .*on cuda:0)"):
            RUN_CUDA["add_norm"](*inputs.values(), 1e-6, False, False)
        with pytest.raises((ValueError, RuntimeError), match="cpu"):
            OP(*inputs.values(), 1e-6, False, False)


def decoded(dtype):
    """The golden latents of the Wan VAE decoded as on a GPU, at two passes: [1, 3, T, H, W]."""
    decoder = WanVAE(golden_codec().network, decoder_dtype=dtype, for_gpu=True).decoder()
    with torch.no_grad():
        parts = golden()["z_normalised"].transpose(1, 2).split(3, dim=1)
        return torch.cat([frames for part in parts for frames in decoder._frames(part)], dim=2).float()


def test_a_vae_on_the_kernel_is_as_exact_as_without(emulated):
    got = decoded(torch.bfloat16)
    assert emulated.calls
    with pytest.MonkeyPatch.context() as context:
        context.setattr(native, "kernels", None)
        plain = decoded(torch.bfloat16)
    exact = golden()["decoded_from_normalised"]
    error, plain_error = ((x - exact).norm() / exact.norm() for x in (got, plain))
    print(f"{len(emulated.calls)} launches; error {error:.3g}, without the kernel {plain_error:.3g}")
    assert error < 1.2 * plain_error
