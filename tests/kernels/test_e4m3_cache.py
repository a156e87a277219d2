"""The kernels that write a cache of e4m3, on the emulator: every rounding, and the op on CPU bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyrf.ops import ema_sink_update, norm_rope_append
from pyrf.ops.e4m3 import E4M3, to_e4m3
from tests.kernels import test_ema_sink_update as sink
from tests.kernels import test_norm_rope_append as append
from tests.kernels.checks import (
    Sizes,
    check_ema_sink_update,
    check_norm_rope_append,
    check_rounding_of_the_sink,
)
from tests.kernels.emulator import ELEMENTS, Emulator, RefusedError
from tests.kernels.torch_bits import DTYPES as TORCH_DTYPES
from tests.kernels.torch_bits import angles, draw, padded, shift

SHAPES = {
    "one of all": Sizes(batch=1, heads=1, slots=2, tokens=1),
    "part of a warp": Sizes(heads=3),
    "whole warps": Sizes(heads=12, head_dim=128, tokens=2),
    "21 chunks of a latent frame": Sizes(batch=1, slots=21, tokens=6),
}
TOKENS = append.TOKENS


def in_e4m3(sizes: Sizes, dtype: str) -> Sizes:
    return Sizes(**{**vars(sizes), "dtype": dtype, "stored": "e4m3"})


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("name", SHAPES)
def test_append_is_near_float64(emulated: Emulator, name: str, dtype: str) -> None:
    sizes = in_e4m3(SHAPES[name], dtype)
    check_norm_rope_append(emulated, sizes, slot=sizes.slots - 1, fused=True)


@pytest.mark.parametrize("name", SHAPES)
def test_the_sink_is_near_float64(emulated: Emulator, name: str) -> None:
    sizes = Sizes(**{**vars(SHAPES[name]), "dtype": "e4m3"})
    check_ema_sink_update(emulated, sizes, sizes.slots - 1, pairs=12)


@pytest.mark.parametrize("schedule", range(3))
def test_schedules(emulated: Emulator, schedule: int) -> None:
    emulated.configure(schedule, 0, seed=5)
    check_norm_rope_append(emulated, in_e4m3(Sizes(heads=7), "bf16"), slot=0, fused=False)
    check_ema_sink_update(emulated, Sizes(head_dim=128, dtype="e4m3"), slot=2, pairs=22)


@pytest.mark.parametrize("slot", [-1, 3, 2**40, -(2**63)])
def test_a_slot_outside_the_cache_is_not_written(emulated: Emulator, slot: int) -> None:
    check_norm_rope_append(emulated, in_e4m3(Sizes(), "bf16"), slot, fused=True)
    check_ema_sink_update(emulated, Sizes(dtype="e4m3"), slot, pairs=12)


def test_the_sink_rounds_to_nearest_even_and_reads_every_byte(emulated: Emulator) -> None:
    check_rounding_of_the_sink(emulated)


def append_arguments(dtype: str = "bf16", *, head_dim: int = 64) -> dict[str, Tensor]:
    """Tensors of the op, the cache rounded to e4m3."""
    tensors = append.arguments(dtype, head_dim=head_dim)
    return tensors | {name: to_e4m3(tensors[name]) for name in ("keys", "values")}


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_every_number_of_16_bits_is_rounded_as_torch_does(emulated: Emulator, dtype: str) -> None:
    """Infinities, too; of NaN the sign may differ. 65,536 numbers are the values of 8 x 4 tokens."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(TORCH_DTYPES[dtype])
    batch = every.numel() // (TOKENS * 384) + 1
    tensors = append_arguments(dtype)
    for name in ("q", "k", "v", "keys", "values"):
        tensors[name] = tensors[name][:1].expand(batch, *tensors[name].shape[1:]).contiguous()
    values = torch.zeros(batch * TOKENS * 384, dtype=every.dtype)
    values[: every.numel()] = every
    tensors["v"] = values.view(batch, TOKENS, 384)
    append.run(emulated, tensors, dtype)
    got = tensors["values"][:, :, TOKENS : 2 * TOKENS]
    expected = to_e4m3(tensors["v"].unflatten(-1, (6, 64)).transpose(1, 2))
    number = ~expected.isnan()
    assert (~number).sum() > 100
    assert got.float().isnan().equal(~number)
    assert torch.equal(got.view(torch.uint8)[number], expected.view(torch.uint8)[number])


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_append_is_the_op_on_cpu(emulated: Emulator, dtype: str, head_dim: int) -> None:
    """Values to the bit. A key may fall to the other side of a tie: its sum has another order."""
    ours, theirs = (append_arguments(dtype, head_dim=head_dim) for _ in range(2))
    got = append.run(emulated, ours, dtype)
    expected = norm_rope_append(**theirs, eps=1e-6)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol={"bf16": 2.0**-7, "fp16": 2.0**-10}[dtype])
    assert torch.equal(ours["values"].view(torch.uint8), theirs["values"].view(torch.uint8))
    differ = ours["keys"].view(torch.uint8) != theirs["keys"].view(torch.uint8)
    assert differ.double().mean() < 1e-3
    torch.testing.assert_close(ours["keys"].float(), theirs["keys"].float(), atol=2.0**-9, rtol=2.0**-3)


def sink_state(tokens: int, head_dim: int = 64) -> list[Tensor]:
    """Keys, values and their masters of a cache of three slots of e4m3."""
    caches = [draw(1, 2, 3 * tokens, head_dim, dtype=torch.float32, seed=seed) for seed in (1, 2)]
    return [*map(to_e4m3, caches), *(cache[:, :, :tokens].clone() for cache in caches)]


@pytest.mark.skipif(
    not sink.lerp_rounds_once(), reason="on this CPU torch's lerp rounds twice, and the kernel once"
)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_every_bit_of_the_sink_is_that_of_the_op_on_cpu(
    emulated: Emulator, head_dim: int, alpha: float
) -> None:
    tokens = 4
    ours, theirs = (sink_state(tokens, head_dim) for _ in range(2))
    turn = angles(head_dim // 6 + 1)
    for _ in range(3):
        sink.run(emulated, ours, turn, tokens, alpha, "e4m3")
        keys, values, key_master, value_master = theirs
        ema_sink_update(keys, values, key_master, value_master, torch.tensor(2), turn, tokens, alpha)
    for a, b in zip(ours, theirs):
        assert torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def test_strides_of_views(emulated: Emulator) -> None:
    """A cache with tokens before heads in memory gives what a contiguous one gives."""
    plain, viewed = append_arguments(), append_arguments()
    for name in ("keys", "values"):
        viewed[name] = viewed[name].transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(append.run(emulated, plain), append.run(emulated, viewed))
    ours, theirs = sink_state(4), [x.transpose(1, 2).contiguous().transpose(1, 2) for x in sink_state(4)]
    for state in (ours, theirs):
        sink.run(emulated, state, angles(12), 4, 0.9, "e4m3")
    for a, b in zip((plain["keys"], plain["values"], *ours), (viewed["keys"], viewed["values"], *theirs)):
        assert torch.equal(a.float(), b.float())


def test_every_byte_moves_once(emulated: Emulator) -> None:
    tensors = append_arguments()
    append.run(emulated, tensors)
    row, rows = tensors["q"].shape[2], 2 * TOKENS
    assert emulated.counters().bytes_stored == rows * row * (2 + 1 + 1)
    tokens, pairs = 4, 12
    state = sink_state(tokens)
    sink.run(emulated, state, angles(pairs), tokens, 0.9, "e4m3")
    counters, elements = emulated.counters(), 2 * state[2].numel()
    assert counters.bytes_stored == elements * (4 + 1)
    assert counters.bytes_loaded == elements * (4 + 1) + 8 * 2 * 2 * 256 + 8 * pairs * 2 * tokens


REFUSED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "keys must be aligned to 16 bytes": ("keys", shift),
    r"keys must have strides of whole 16 bytes \(multiples of 16 elements\), got 68": ("keys", padded),
    "values must be e4m3, got bfloat16": ("values", lambda x: x.bfloat16()),
    r"dtype must be 0 \(bfloat16\) or 1 \(float16\), got 2": ("q", lambda x: x.float()),
    "k must be bfloat16, got e4m3": ("k", lambda x: x.to(E4M3)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_append_refuses(emulated: Emulator, message: str) -> None:
    name, change = REFUSED[message]
    tensors = append_arguments()
    tensors[name] = change(tensors[name])
    with pytest.raises(RefusedError, match=f"^norm_rope_append: {message}"):
        append.run(emulated, tensors)


def test_the_sink_refuses_another_master(emulated: Emulator) -> None:
    state = sink_state(4)
    state[2] = state[2].to(torch.int16)
    with pytest.raises(RefusedError, match=r"^ema_sink_update: key_master must be float32, got int16"):
        sink.run(emulated, state, angles(12), 4, 0.9, "e4m3")
