"""The norm, rotation and append kernel on the emulator: against float64 and against the op on CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyrf.ops import norm_rope_append
from tests.kernels.checks import Sizes, check_norm_rope_append
from tests.kernels.emulator import ELEMENTS, Emulator, RefusedError
from tests.kernels.torch_bits import DTYPES as TORCH_DTYPES
from tests.kernels.torch_bits import angles, bits, draw, padded, shift, transposed

SHAPES = {
    "one of all": Sizes(batch=1, heads=1, slots=1, tokens=1),
    "part of a warp": Sizes(heads=3),
    "whole warps": Sizes(heads=12, head_dim=128, tokens=2),
    "40 heads, the widest": Sizes(batch=1, heads=40, head_dim=128, slots=2, tokens=1),
    "80 heads, the widest": Sizes(batch=1, heads=80, slots=2, tokens=1),
    "21 chunks of a latent frame": Sizes(batch=1, slots=21, tokens=6),
}


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("name", SHAPES)
def test_float64(emulated: Emulator, name: str, dtype: str) -> None:
    sizes = Sizes(**{**vars(SHAPES[name]), "dtype": dtype})
    check_norm_rope_append(emulated, sizes, slot=sizes.slots - 1, fused=True)


@pytest.mark.parametrize("schedule", range(3))
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_schedules(emulated: Emulator, dtype: str, head_dim: int, schedule: int) -> None:
    emulated.configure(schedule, 0, seed=5)
    check_norm_rope_append(emulated, Sizes(heads=7, head_dim=head_dim, dtype=dtype), slot=0, fused=False)


@pytest.mark.parametrize("slot", [-1, 3, 2**40, -(2**63)])
def test_a_slot_outside_the_cache_writes_queries_only(emulated: Emulator, slot: int) -> None:
    check_norm_rope_append(emulated, Sizes(), slot, fused=True)


TOKENS = 4


def arguments(dtype: str = "bf16", *, heads: int = 6, head_dim: int = 64) -> dict[str, Tensor]:
    """Tensors of the op for a cache of three slots; q, k and v are views of one product."""
    torch_dtype, dim = TORCH_DTYPES[dtype], heads * head_dim
    q, k, v = draw(2, TOKENS, 3 * dim, dtype=torch_dtype).chunk(3, -1)
    norms = [1 + 0.1 * draw(dim, dtype=torch_dtype, seed=seed) for seed in (1, 2)]
    caches = [draw(2, heads, 3 * TOKENS, head_dim, dtype=torch_dtype, seed=seed) for seed in (3, 4)]
    tensors = [q, k, v, *norms, angles(TOKENS, head_dim // 2), torch.tensor(1), *caches]
    return dict(zip(("q", "k", "v", "norm_q", "norm_k", "rope", "slot", "keys", "values"), tensors))


def run(emulated: Emulator, tensors: dict[str, Tensor], dtype: str = "bf16", eps: float = 1e-6) -> Tensor:
    batch, heads, _, head_dim = tensors["keys"].shape
    out = torch.full((batch, TOKENS, heads, head_dim), float("nan"), dtype=tensors["q"].dtype)
    arrays = {name: bits(x) for name, x in tensors.items()}
    emulated.run("norm_rope_append", dtype, **arrays, eps=eps, q_out=bits(out))
    return out.transpose(1, 2)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_the_op_on_cpu(emulated: Emulator, dtype: str, head_dim: int) -> None:
    ours, theirs = (arguments(dtype, head_dim=head_dim) for _ in range(2))
    got = run(emulated, ours, dtype)
    expected = norm_rope_append(**theirs, eps=1e-6)
    ulp = {"bf16": 2.0**-7, "fp16": 2.0**-10}[dtype]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=ulp)
    torch.testing.assert_close(ours["keys"], theirs["keys"], atol=1e-6, rtol=ulp)
    assert torch.equal(ours["values"], theirs["values"])


def test_strides_of_views(emulated: Emulator) -> None:
    """Padded rows and a cache with tokens before heads give what contiguous ones give."""
    plain, viewed = arguments(), arguments()
    for name in ("q", "k", "v"):
        padded = torch.full((2, TOKENS, 400), float("nan"), dtype=torch.bfloat16)
        padded[:, :, : 6 * 64] = viewed[name]
        viewed[name] = padded[:, :, : 6 * 64]
    viewed["keys"] = viewed["keys"].transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(run(emulated, plain), run(emulated, viewed))
    for name in ("keys", "values"):
        assert torch.equal(plain[name], viewed[name])


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_every_byte_moves_once(emulated: Emulator, dtype: str) -> None:
    """Weights and table apart, which each token reads again."""
    tensors = arguments(dtype)
    run(emulated, tensors, dtype)
    counters = emulated.counters()
    row = tensors["q"].shape[2]
    rows = 2 * TOKENS
    shared = 2 * row * 2 + row * 4 + 64 * 8  # norm_q and norm_k, rope, and the slot by each of 64 threads
    assert counters.bytes_loaded == rows * (3 * row * 2 + shared)
    assert counters.bytes_stored == rows * 3 * row * 2


REFUSED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "q must be aligned to 16 bytes": ("q", shift),
    "norm_k must be aligned to 16 bytes": ("norm_k", shift),
    "rope must be aligned to 16 bytes": ("rope", shift),
    "k must have strides of whole 16 bytes": ("k", padded),
    "v must be contiguous in its last dimension": ("v", transposed),
    r"k must be \[2, 4, 384\], got \[1, 4, 384\]": ("k", lambda x: x[:1]),
    "q must have 3 dimensions, got 2": ("q", lambda x: x[0]),
    "rope must be float32, got int64": ("rope", lambda x: x.long()),
    "slot must be int64, got float32": ("slot", lambda x: x.float()),
    "values must be contiguous in its last dimension": ("values", transposed),
    "keys is written and must not be expanded": ("keys", lambda x: x[:1].expand_as(x)),
    "head_dim must be 64 or 128, got 96": ("keys", lambda x: x.new_zeros(2, 4, 12, 96)),
    "capacity must be a multiple of a slot's 4 tokens, got 10": ("keys", lambda x: x[:, :, :10]),
    r"heads \* head_dim must lie in 1..5120, got 5184": ("keys", lambda x: x.new_zeros(1, 81, 12, 64)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_tensors(emulated: Emulator, message: str) -> None:
    name, change = REFUSED[message]
    tensors = arguments()
    tensors[name] = change(tensors[name])
    with pytest.raises(RefusedError, match=f"^norm_rope_append: {message}"):
        run(emulated, tensors)


def test_refuses_numbers(emulated: Emulator) -> None:
    with pytest.raises(RefusedError, match="dtype must be"):
        run(emulated, arguments(), dtype="float32")
    with pytest.raises(RefusedError, match="eps must not be negative, got -1"):
        run(emulated, arguments(), eps=-1.0)
