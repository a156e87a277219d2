"""The native module: what its bindings take, and what the launches of a CUDA build say without a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyrf.ops import native
from tests.kernels import emulator

_native = pytest.importorskip("pyrf._native")

ADDRESS = 1 << 20  # aligned, and never touched
BF16, FP16, FP32, INT16, INT64, E4M3 = (
    _native.DTYPES[name] for name in ("bfloat16", "float16", "float32", "int16", "int64", "float8_e4m3fn")
)

View = tuple[int, int, tuple[int, ...], tuple[int, ...]]


def view(dtype: int, *shape: int) -> View:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return ADDRESS, dtype, shape, tuple(strides[: len(shape)])


def call(op: str, dtype: int) -> list[Any]:
    """The arguments of a call that only lacks a device; the first gives sizes."""
    rows, cache, slot = view(dtype, 2, 4, 64), view(dtype, 2, 1, 8, 64), view(INT64)
    if op == "add_norm":
        channels = view(dtype, 64)
        return [rows, rows, *4 * [channels], 1e-6, False, True, rows, rows, None, 0]
    if op == "ema_sink_update":
        master = view(INT16 if dtype == BF16 else FP32, 2, 1, 4, 64)
        return [cache, cache, master, master, slot, view(FP32, 12, 2), 4, 0.9, 0]
    if op == "norm_rope_append":
        channels, rope = view(dtype, 64), view(FP32, 4, 32, 2)
        out = view(dtype, 2, 4, 1, 64)
        return [rows, rows, rows, channels, channels, 1e-6, rope, slot, cache, cache, out, 0]
    if op == "quantise_rows":
        return [rows, False, view(E4M3, 2, 4, 64), view(FP32, 2, 4, 1), 0]
    if op == "ring_attention_e4m3":
        cache = view(E4M3, 2, 1, 8, 64)
    return [view(dtype, 2, 1, 4, 64), cache, cache, 8, rows, 0]


built = pytest.mark.skipif(native.kernels is None, reason="pyrf was built without CUDA: there was no nvcc")


def test_all_agree_on_the_numbers_of_dtypes() -> None:
    numbers = {str(dtype).removeprefix("torch."): number for dtype, number in native.DTYPE_NUMBERS.items()}
    assert numbers == _native.DTYPES
    short = {"bfloat16": "bf16", "float16": "fp16", "float8_e4m3fn": "e4m3"}
    assert {short.get(name, name): number for name, number in numbers.items()} == emulator.DTYPES


@pytest.mark.parametrize(
    "given",
    [7, (ADDRESS, FP32, (1, 8)), (ADDRESS, FP32, [1, 8], [8, 1]), (ADDRESS, FP32, (1, 8), (8,))],
)
def test_what_is_no_view_is_refused(given: object) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _native.cpu.ring_attention(given, None, None, 1, None, 1)


@built
@pytest.mark.parametrize("op", emulator.KERNELS)
def test_bad_arguments_are_value_errors(op: str) -> None:
    launch = getattr(_native, op)
    with pytest.raises(ValueError, match=rf"^{op}: dtype must be 0 \(bfloat16\) or 1 \(float16\), got 7"):
        launch(*call(op, 7))
    with pytest.raises(ValueError, match=rf"^{op}: .* must be a device pointer, got null"):
        launch(None, *call(op, BF16)[1:])


@built
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device, and these addresses are not on it")
@pytest.mark.parametrize("op", emulator.KERNELS)
def test_without_a_device_a_launch_says_so(op: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^{op}: cudaError.*need an NVIDIA GPU and its driver"):
        getattr(_native, op)(*call(op, FP16))
