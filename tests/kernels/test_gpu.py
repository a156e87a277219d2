"""The kernels on a GPU (`-m gpu`), and a rehearsal of these tests on emulated kernels where there is none."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyrf.config import ModelConfig, StreamConfig
from pyrf.ops import native
from pyrf.ops.attention_choice import CHOICE
from pyrf.ops.e4m3 import E4M3
from tests.kernels.emulator import KERNELS, has_compiler
from tests.kernels.gpu_checks import (
    Case,
    LayerStream,
    check_add_norm,
    check_ema_sink_update,
    check_norm_rope_append,
    check_ring_attention,
    check_rows_in_e4m3,
    check_stream,
)
from tests.support.emulated_native import EmulatedKernels, cpu_tensors_take_the_cuda_path

DTYPES = (torch.bfloat16, torch.float16)
on_gpu = pytest.mark.gpu
SHAPES = [
    pytest.param(12, 4680, 1, id="wan-1.3b"),
    pytest.param(3, 333, 2, id="odd"),
]
"""Heads, tokens of a slot, batch. Heads of 128 channels; twice as many of 64."""


@pytest.fixture(autouse=True)
def seed() -> None:
    """Fresh inputs for every run; what a failing test prints repeats it."""
    seed = secrets.randbelow(2**31)
    torch.manual_seed(seed)
    print(f"torch.manual_seed({seed})")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that the kernels serve, and our attention on it."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    refusal = native.refusal(12, 128, torch.bfloat16, torch.device("cuda", 0))
    if refusal:
        pytest.skip(refusal)
    monkeypatch.setattr(CHOICE, "_mode", "pyrf")


def case_of(dtype: torch.dtype, head_dim: int, heads: int, tokens: int, batch: int) -> Case:
    return Case(dtype, head_dim, heads * 128 // head_dim, tokens, batch)


@on_gpu
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("heads", "tokens", "batch"), SHAPES)
@pytest.mark.parametrize(("dtype", "head_dim"), list(product(DTYPES, native.HEAD_DIMS)))
class TestOnGpu:
    def test_ring_attention(
        self, dtype: torch.dtype, head_dim: int, heads: int, tokens: int, batch: int
    ) -> None:
        case = case_of(dtype, head_dim, heads, tokens, batch)
        for length in (3 * tokens, 2 * tokens, tokens, 2 * tokens + 17, 5):
            check_ring_attention(case, length)

    def test_ring_attention_of_e4m3(
        self, dtype: torch.dtype, head_dim: int, heads: int, tokens: int, batch: int
    ) -> None:
        if torch.cuda.get_device_capability() < native.E4M3_CAPABILITY:
            pytest.skip("this GPU has no products of e4m3")
        case = case_of(dtype, head_dim, heads, tokens, batch)
        for length in (3 * tokens, 2 * tokens + 17, 5):
            check_ring_attention(case, length, E4M3)

    def test_norm_rope_append(
        self, dtype: torch.dtype, head_dim: int, heads: int, tokens: int, batch: int
    ) -> None:
        check_norm_rope_append(case_of(dtype, head_dim, heads, tokens, batch))

    def test_norm_rope_append_to_e4m3(
        self, dtype: torch.dtype, head_dim: int, heads: int, tokens: int, batch: int
    ) -> None:
        check_norm_rope_append(case_of(dtype, head_dim, heads, tokens, batch), E4M3)

    def test_ema_sink_update(
        self, dtype: torch.dtype, head_dim: int, heads: int, tokens: int, batch: int
    ) -> None:
        check_ema_sink_update(case_of(dtype, head_dim, heads, tokens, batch))


@on_gpu
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("heads", "tokens", "batch"), SHAPES)
@pytest.mark.parametrize("head_dim", native.HEAD_DIMS)
def test_ema_sink_update_of_e4m3(head_dim: int, heads: int, tokens: int, batch: int) -> None:
    check_ema_sink_update(case_of(E4M3, head_dim, heads, tokens, batch))


@on_gpu
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "dim"), [(4680, 1536), (4680, 5120), (12 * 480 * 832, 96), (12 * 240 * 416, 192), (12481, 384)]
)
def test_add_norm(dtype: torch.dtype, rows: int, dim: int) -> None:
    """Rows of both DiTs and of the Wan VAE, a chunk at a time."""
    check_add_norm(dtype, rows, dim, "cuda")


@on_gpu
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dim", "hidden"), [(1536, 8960), (3072, 14336), (5120, 13824)])
def test_rows_in_e4m3(dtype: torch.dtype, dim: int, hidden: int) -> None:
    check_rows_in_e4m3(dtype, 4680, dim, hidden, "cuda")


LAYER = ModelConfig(num_layers=1)


@on_gpu
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", DTYPES)
def test_fifty_chunks_of_graph_replay(dtype: torch.dtype) -> None:
    """A layer of the 1.3B model at 480 x 832."""
    check_stream(LAYER, rows=30, columns=52, dtype=dtype, device="cuda")


@pytest.fixture(scope="module")
def emulated() -> Iterator[None]:
    """Ops on CPU tensors take the CUDA path, down to the kernels, which the emulator runs."""
    if not has_compiler():
        pytest.skip("needs a C++ compiler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CHOICE, "_mode", "pyrf")
        kernels = EmulatedKernels()
        with cpu_tensors_take_the_cuda_path(patch, kernels):
            yield
        assert set(kernels.calls) == set(KERNELS)


@pytest.mark.usefixtures("emulated")
class TestRehearsal:
    """The same checks at small sizes."""

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_kernels(self, dtype: torch.dtype) -> None:
        case = Case(dtype, 64, heads=2, tokens=40, batch=2, device="cpu")
        check_ring_attention(case, 100)
        check_ring_attention(case, 100, E4M3)
        check_norm_rope_append(case)
        check_norm_rope_append(case, E4M3)
        check_ema_sink_update(case)
        check_ema_sink_update(replace(case, dtype=E4M3))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("rows", "dim"), [(77, 96), (18, 384), (7, 1536), (3, 5120)])
    def test_add_norm(self, dtype: torch.dtype, rows: int, dim: int) -> None:
        check_add_norm(dtype, rows, dim, "cpu")

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("dim", "hidden"), [(96, 2056), (1536, 8960)])
    def test_rows_in_e4m3(self, dtype: torch.dtype, dim: int, hidden: int) -> None:
        check_rows_in_e4m3(dtype, 7, dim, hidden, "cpu")

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_stream(self, dtype: torch.dtype) -> None:
        model = ModelConfig(dim=128, ffn_dim=128, num_heads=2, num_layers=1)
        check_stream(model, rows=2, columns=3, dtype=dtype, device="cpu", chunks=12)


def test_a_stream_is_traced_on_fake_cuda() -> None:
    """No device is mixed, and no value read on the host, from the first chunk past a full window."""
    stream, dtype = StreamConfig(), torch.bfloat16
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        layer = LayerStream(LAYER, stream, 30, 52, dtype, "cuda:0")  # without an index torch asks the driver
        for _ in range(stream.slots + 2):
            layer.cache.begin_chunk()
            out = layer.attend()
            layer.cache.commit()
    assert (out.device.type, out.dtype, tuple(out.shape)) == ("cuda", dtype, (1, 4680, 1536))
