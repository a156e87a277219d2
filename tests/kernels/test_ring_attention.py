"""The attention kernel on the emulator: against float64 and against the op on CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyrf.ops import ring_attention
from tests.kernels.checks import Sizes, check_ring_attention
from tests.kernels.emulator import ELEMENTS, EVERY_SCHEDULE, Emulator, RefusedError
from tests.kernels.torch_bits import DTYPES as TORCH_DTYPES
from tests.kernels.torch_bits import bits, draw, padded, shift, transposed

# Sizes, queries, length. A tile is 128 queries, and 64 keys or, with 128 channels, 48.
SHAPES = {
    "one of all": (Sizes(batch=1, heads=1, slots=1, tokens=1), 1, 1),
    "fewer keys than a tile": (Sizes(slots=4, tokens=10), 10, 20),
    "four tiles of keys and a tail": (Sizes(slots=11, tokens=20), 20, 200),
    "whole tiles": (Sizes(batch=1, heads=1, slots=3, tokens=64), 128, 192),
    "one key in the last tile": (Sizes(batch=1, heads=3, slots=13, tokens=10), 10, 129),
    "one query in the last tile": (Sizes(batch=1, slots=2, tokens=129), 129, 129),
    "21 chunks of a latent frame": (Sizes(batch=1, heads=1, slots=21, tokens=6), 6, 126),
}


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", SHAPES)
def test_float64(emulated: Emulator, name: str, head_dim: int, dtype: str) -> None:
    sizes, queries, length = SHAPES[name]
    sizes = Sizes(**{**vars(sizes), "head_dim": head_dim, "dtype": dtype})
    error = check_ring_attention(emulated, sizes, queries, length)
    print(f"rel L2 {error:.2e}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("slots", [3, 9])
def test_the_window_of_wan(emulated: Emulator, slots: int, dtype: str) -> None:
    """A head of a 480x832 stream: 14040 keys, in chunks of three latent frames or of one."""
    sizes = Sizes(batch=1, heads=1, slots=slots, tokens=14040 // slots, head_dim=128, dtype=dtype)
    error = check_ring_attention(emulated, sizes, queries=128, length=14040)
    print(f"rel L2 {error:.2e}")


@pytest.mark.parametrize(("schedule", "copy_mode"), EVERY_SCHEDULE)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_schedules(emulated: Emulator, head_dim: int, schedule: int, copy_mode: int) -> None:
    emulated.configure(schedule, copy_mode, seed=5)
    sizes = Sizes(batch=1, slots=11, tokens=20, head_dim=head_dim)
    check_ring_attention(emulated, sizes, queries=20, length=200)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_scores_that_grow_and_shrink(emulated: Emulator, dtype: str) -> None:
    """Weights of nearly 0 and 1, whose running maximum moves from tile to tile."""
    check_ring_attention(emulated, Sizes(slots=20, tokens=10, dtype=dtype), queries=10, length=200, spread=30)


def arguments(dtype: str = "bf16", head_dim: int = 64) -> dict[str, Tensor]:
    torch_dtype = TORCH_DTYPES[dtype]
    shapes = {"q": (2, 3, 20, head_dim), "keys": (2, 3, 160, head_dim), "values": (2, 3, 160, head_dim)}
    return {name: draw(*shape, dtype=torch_dtype, seed=len(name)) for name, shape in shapes.items()}


def run(emulated: Emulator, tensors: dict[str, Tensor], length: int = 140, dtype: str = "bf16") -> Tensor:
    q = tensors["q"]
    out = torch.full((q.shape[0], q.shape[2], q.shape[1] * q.shape[3]), float("nan"), dtype=q.dtype)
    arrays = {name: bits(x) for name, x in tensors.items()}
    emulated.run("ring_attention", dtype, **arrays, out=bits(out), length=length)
    return out


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_the_op_on_cpu(emulated: Emulator, dtype: str, head_dim: int) -> None:
    tensors = arguments(dtype, head_dim)
    got = run(emulated, tensors, dtype=dtype)
    expected = ring_attention(**{name: x.float() for name, x in tensors.items()}, length=140)
    assert (got - expected).norm() <= 3e-3 * expected.norm()


def test_strides_of_views(emulated: Emulator) -> None:
    """Tokens before heads in memory, or two caches in one buffer, give what contiguous tensors give."""
    tensors = arguments()
    plain = run(emulated, tensors)
    both = torch.cat((tensors["keys"], tensors["values"]), -1)
    tensors["q"] = tensors["q"].transpose(1, 2).contiguous().transpose(1, 2)
    tensors["keys"], tensors["values"] = both.chunk(2, -1)
    assert torch.equal(run(emulated, tensors), plain)


def test_work_and_traffic(emulated: Emulator) -> None:
    """Products of whole tiles, one barrier a tile of keys, and no shared-memory bank used twice at once."""
    run(emulated, arguments())
    counters = emulated.counters()
    blocks, tiles, warps = 2 * 3, 3, 4
    products = 2 * (128 // 16) * (64 // 8) * (64 // 16)  # scores and weighted values, of 16 x 8 x 16
    assert counters.multiply_adds == blocks * tiles * products
    assert counters.barriers == blocks * tiles
    assert counters.matrix_loads == blocks * tiles * warps * (4 * (2 + 4) + 4 * 4)
    assert counters.bank_conflicts == 0
    assert counters.bytes_stored == 2 * 20 * 3 * 64 * 2


REFUSED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "q must be aligned to 16 bytes": ("q", shift),
    "keys must be aligned to 16 bytes": ("keys", shift),
    "q must be contiguous in its last dimension": ("q", transposed),
    r"values must be \[2, 3, 160, 64\], got \[2, 2, 160, 64\]": ("values", lambda x: x[:, :2]),
    "values must have strides of whole 16 bytes": ("values", padded),
    "head_dim must be 64 or 128, got 96": ("keys", lambda x: x.new_zeros(2, 3, 160, 96)),
    r"length must lie in 1..100, got 140": ("keys", lambda x: x[:, :, :100]),
    r"queries must lie in 1..16777216, got 0": ("q", lambda x: x[:, :, :0]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_tensors(emulated: Emulator, message: str) -> None:
    name, change = REFUSED[message]
    tensors = arguments()
    tensors[name] = change(tensors[name])
    with pytest.raises(RefusedError, match=f"^ring_attention: {message}"):
        run(emulated, tensors)


def test_refuses_numbers(emulated: Emulator) -> None:
    with pytest.raises(RefusedError, match="dtype must be"):
        run(emulated, arguments(), dtype="float32")
    with pytest.raises(RefusedError, match=r"length must lie in 1..160, got 0"):
        run(emulated, arguments(), length=0)
