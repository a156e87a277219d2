"""The native module's ops, where CUDA was built: without a device they say what is missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyrf import _native

pytestmark = pytest.mark.skipif(
    not _native.build_info()["cuda"], reason="pyrf was built without CUDA: there was no nvcc"
)

STRIDES = (0, 0, 64, 1)
ADDRESS = 1 << 20  # aligned, and never touched
ROWS = (ADDRESS, (0, 64, 1)) * 3
CACHE = (ADDRESS, STRIDES) * 2

CALLS: dict[str, tuple[Any, ...]] = {
    "add_norm": (*(6 * (ADDRESS,)), 1e-6, False, True, ADDRESS, ADDRESS, 8, 64, 0),
    "ema_sink_update": (*CACHE, *CACHE, ADDRESS, ADDRESS, 1, 1, 8, 4, 64, 12, 0.9, 0),
    "norm_rope_append": (*ROWS, ADDRESS, ADDRESS, 1e-6, ADDRESS, ADDRESS, *CACHE, ADDRESS, 1, 1, 8, 4, 64, 0),
    "ring_attention": (ADDRESS, STRIDES, *CACHE, ADDRESS, 1, 1, 8, 4, 8, 64, 0),
}


@pytest.mark.parametrize("op", CALLS)
def test_bad_arguments_are_value_errors(op: str) -> None:
    with pytest.raises(ValueError, match=rf"^{op}: dtype must be 0 \(bfloat16\) or 1 \(float16\), got 7"):
        getattr(_native, op)(7, *CALLS[op])
    with pytest.raises(ValueError, match=rf"^{op}: .* must be a device pointer, got null"):
        getattr(_native, op)(_native.BF16, 0, *CALLS[op][1:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device, and these addresses are not on it")
@pytest.mark.parametrize("op", CALLS)
def test_without_a_device_a_launch_says_so(op: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^{op}: cudaError.*need an NVIDIA GPU and its driver"):
        getattr(_native, op)(_native.FP16, *CALLS[op])
