"""The attention kernel with products of e4m3 on the emulator: against float64 and against the op on CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyrf.ops.e4m3 import attend, to_e4m3, widened
from tests.kernels import test_ring_attention as wide
from tests.kernels.checks import Sizes, check_ring_attention
from tests.kernels.emulator import ELEMENTS, EVERY_SCHEDULE, Emulator, RefusedError
from tests.kernels.torch_bits import bits, padded, shift, transposed


def stored(sizes: Sizes, **changes: str | int) -> Sizes:
    return Sizes(**{**vars(sizes), "stored": "e4m3", **changes})


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", wide.SHAPES)
def test_float64(emulated: Emulator, name: str, head_dim: int, dtype: str) -> None:
    sizes, queries, length = wide.SHAPES[name]
    error = check_ring_attention(emulated, stored(sizes, head_dim=head_dim, dtype=dtype), queries, length)
    print(f"rel L2 {error:.2e}")


@pytest.mark.slow
def test_the_window_of_wan(emulated: Emulator) -> None:
    """A head of a 480x832 stream: 14040 keys."""
    sizes = Sizes(batch=1, heads=1, slots=3, tokens=4680, head_dim=128, stored="e4m3")
    print(f"rel L2 {check_ring_attention(emulated, sizes, queries=128, length=14040):.2e}")


@pytest.mark.parametrize(("schedule", "copy_mode"), EVERY_SCHEDULE)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_schedules(emulated: Emulator, head_dim: int, schedule: int, copy_mode: int) -> None:
    emulated.configure(schedule, copy_mode, seed=5)
    sizes = Sizes(batch=1, slots=11, tokens=20, head_dim=head_dim, stored="e4m3")
    check_ring_attention(emulated, sizes, queries=20, length=200)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_scores_that_grow_and_shrink(emulated: Emulator, dtype: str) -> None:
    """Weights of nearly 0 and 1, whose running maximum moves from tile to tile."""
    sizes = Sizes(slots=20, tokens=10, dtype=dtype, stored="e4m3")
    assert check_ring_attention(emulated, sizes, queries=10, length=200, spread=30) < 3e-3


def arguments(dtype: str = "bf16", head_dim: int = 64) -> dict[str, Tensor]:
    """q in the dtype, keys and values rounded to e4m3."""
    tensors = wide.arguments(dtype, head_dim)
    return {name: x if name == "q" else to_e4m3(x) for name, x in tensors.items()}


def run(emulated: Emulator, tensors: dict[str, Tensor], length: int = 140, dtype: str = "bf16") -> Tensor:
    q = tensors["q"]
    out = torch.full((q.shape[0], q.shape[2], q.shape[1] * q.shape[3]), float("nan"), dtype=q.dtype)
    arrays = {name: bits(x) for name, x in tensors.items()}
    emulated.run("ring_attention_e4m3", dtype, **arrays, out=bits(out), length=length)
    return out


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_it_is_as_near_to_float64_as_torch_s_is(emulated: Emulator, dtype: str, head_dim: int) -> None:
    """Both round the same numbers, the weights relative to another largest score; see `pyrf.ops.e4m3`."""
    tensors = arguments(dtype, head_dim)
    q, keys, values = tensors.values()
    exact = torch.nn.functional.scaled_dot_product_attention(*widened(q.double(), keys, values, 140))
    results = {
        "kernel": run(emulated, tensors, dtype=dtype).unflatten(-1, (3, head_dim)).transpose(1, 2),
        "torch": attend(q.float(), keys, values, 140),
    }
    errors = {name: ((x - exact).norm() / exact.norm()).item() for name, x in results.items()}
    print(", ".join(f"{name} {error:.2e}" for name, error in errors.items()))
    assert errors["kernel"] < 1.1 * errors["torch"]
    assert 0.01 < errors["kernel"] < 0.03


@pytest.mark.parametrize("head_dim", [64, 128])
def test_one_key_s_value_is_exact(emulated: Emulator, head_dim: int) -> None:
    """Its scaled weight, 256, is an e4m3 number, and so is each channel of it: every one in its own place."""
    tensors = arguments(head_dim=head_dim)
    values = tensors["values"]
    tensors["q"].fill_(0)
    for length in (1, 40):  # of which all but one weigh nothing
        tensors["keys"] = to_e4m3(torch.full(values.shape, -8.0))
        tensors["keys"][:, :, length - 1] = to_e4m3(torch.full((head_dim,), 8.0))
        tensors["q"].fill_(8)
        got = run(emulated, tensors, length)
        expected = values[:, :, length - 1 : length].float().expand(-1, -1, 20, -1)
        assert torch.equal(got.float(), expected.transpose(1, 2).flatten(2))


def test_strides_of_views(emulated: Emulator) -> None:
    """Tokens before heads in memory, or two caches in one buffer, give what contiguous tensors give."""
    tensors = arguments()
    plain = run(emulated, tensors)
    both = torch.cat((tensors["keys"].view(torch.uint8), tensors["values"].view(torch.uint8)), -1)
    tensors["q"] = tensors["q"].transpose(1, 2).contiguous().transpose(1, 2)
    tensors["keys"], tensors["values"] = (x.view(torch.float8_e4m3fn) for x in both.chunk(2, -1))
    assert torch.equal(run(emulated, tensors), plain)


def test_work_and_traffic(emulated: Emulator) -> None:
    """Half the products of 16 bits, one barrier a tile of keys, and no bank used twice at once."""
    run(emulated, arguments())
    counters = emulated.counters()
    blocks, tiles, warps = 2 * 3, 3, 4
    products = 2 * (128 // 16) * (64 // 8) * (64 // 32)  # scores and weighted values, of 16 x 8 x 32
    assert counters.multiply_adds == blocks * tiles * products
    assert counters.barriers == blocks * tiles
    assert counters.matrix_loads == blocks * tiles * warps * (2 * (2 + 4) + 2 * 4)
    assert counters.bank_conflicts == 0
    assert counters.bytes_stored == 2 * 20 * 3 * 64 * 2


REFUSED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "q must be aligned to 16 bytes": ("q", shift),
    "keys must be aligned to 16 bytes": ("keys", shift),
    "keys must be e4m3, got bfloat16": ("keys", lambda x: x.bfloat16()),
    "values must be e4m3, got bfloat16": ("values", lambda x: x.bfloat16()),
    r"dtype must be 0 \(bfloat16\) or 1 \(float16\), got 5": ("q", to_e4m3),
    "q must be contiguous in its last dimension": ("q", transposed),
    r"values must be \[2, 3, 160, 64\], got \[2, 2, 160, 64\]": ("values", lambda x: x[:, :2]),
    r"values must have strides of whole 16 bytes \(multiples of 16 elements\)": ("values", padded),
    "head_dim must be 64 or 128, got 96": ("keys", lambda x: to_e4m3(torch.zeros(2, 3, 160, 96))),
    r"length must lie in 1..100, got 140": ("keys", lambda x: x[:, :, :100]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_tensors(emulated: Emulator, message: str) -> None:
    name, change = REFUSED[message]
    tensors = arguments()
    tensors[name] = change(tensors[name])
    with pytest.raises(RefusedError, match=f"^ring_attention_e4m3: {message}"):
        run(emulated, tensors)


def test_the_kernel_of_16_bits_refuses_e4m3(emulated: Emulator) -> None:
    tensors = wide.arguments()
    with pytest.raises(RefusedError, match=r"^ring_attention: keys must be bfloat16, got e4m3"):
        wide.run(emulated, tensors | {"keys": to_e4m3(tensors["keys"])})
