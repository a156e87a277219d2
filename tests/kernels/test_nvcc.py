"""The kernels compile for every architecture, without spills or local memory."""

from __future__ import annotations

import pytest
from emulator import KERNELS
from nvcc import ARCHITECTURES, find_nvcc, usage

pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="there is no nvcc on PATH or in /usr/local/cuda/bin")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiles_without_spills(kernel: str, architecture: str) -> None:
    found = usage(kernel, architecture)
    assert {(entry.dtype, entry.head_dim) for entry in found} == {
        (dtype, head_dim) for dtype in ("bf16", "fp16") for head_dim in (64, 128)
    }
    for entry in found:
        print(f"sm_{architecture} {entry}")
        assert entry.stack == entry.spills == 0
