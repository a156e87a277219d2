"""The EMA-Sink kernel on the emulator: against float64, against the op on CPU, and over many evictions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pyrf.ops import ema_sink_update
from pyrf.ops.ema_sink_update import MASTER_DTYPES, join_bits
from tests.kernels.checks import Sizes, check_ema_sink_update
from tests.kernels.emulator import ELEMENTS, Emulator, RefusedError
from tests.kernels.torch_bits import DTYPES as TORCH_DTYPES
from tests.kernels.torch_bits import angles, bits, draw, padded, shift, transposed

SHAPES = {
    "one of all": (Sizes(batch=1, heads=1, slots=2, tokens=1), 1, 12),
    "no pair turns": (Sizes(), 1, 0),
    "all pairs turn": (Sizes(head_dim=128), 2, 64),
    "an odd number of pairs": (Sizes(batch=3, heads=5, head_dim=128, tokens=2), 1, 21),
    "several blocks of threads": (Sizes(batch=1, heads=2, tokens=37), 2, 12),
    "the sink itself": (Sizes(slots=2), 0, 12),
    "21 chunks of a latent frame": (Sizes(batch=1, slots=21, tokens=6), 20, 12),
}


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("name", SHAPES)
def test_float64(emulated: Emulator, name: str, dtype: str) -> None:
    sizes, slot, pairs = SHAPES[name]
    updates = 1 if slot == 0 else 2
    check_ema_sink_update(emulated, Sizes(**{**vars(sizes), "dtype": dtype}), slot, pairs, updates)


@pytest.mark.parametrize("schedule", range(3))
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_schedules(emulated: Emulator, dtype: str, head_dim: int, schedule: int) -> None:
    emulated.configure(schedule, 0, seed=5)
    check_ema_sink_update(emulated, Sizes(head_dim=head_dim, dtype=dtype), slot=2, pairs=22)


@pytest.mark.parametrize("slot", [-1, 3, 2**40, -(2**63)])
def test_a_slot_outside_the_cache_changes_nothing(emulated: Emulator, slot: int) -> None:
    check_ema_sink_update(emulated, Sizes(), slot, pairs=12)


def state(dtype: str, tokens: int, *, heads: int = 2, head_dim: int = 64) -> list[Tensor]:
    """Keys, values and their masters of a cache of three slots."""
    torch_dtype = TORCH_DTYPES[dtype]
    caches = [draw(1, heads, 3 * tokens, head_dim, dtype=torch_dtype, seed=seed) for seed in (1, 2)]
    if dtype == "fp16":
        return [*caches, *(cache[:, :, :tokens].float() for cache in caches)]
    return [*caches, *(torch.zeros(1, heads, tokens, head_dim, dtype=torch.int16) for _ in caches)]


def run(
    emulated: Emulator, tensors: Sequence[Tensor | None], turn: Tensor, tokens: int, alpha: float, dtype: str
) -> None:
    names = ("keys", "values", "key_master", "value_master", "slot", "turn")
    given = (*tensors, torch.tensor(2), turn)
    arrays = {name: None if x is None else bits(x) for name, x in zip(names, given)}
    emulated.run("ema_sink_update", dtype, **arrays, tokens=tokens, alpha=alpha)


def lerp_rounds_once() -> bool:
    """Whether torch's lerp fuses its product and sum here, as the kernel does; old processors cannot."""
    low, high = -0.25 - 2.0**-13, 0.75 + 2.0**-13
    return bool(torch.full((64,), low).lerp_(torch.full((64,), high), (1 + 2.0**-12) / 4).all())


@pytest.mark.skipif(
    not lerp_rounds_once(), reason="on this CPU torch's lerp rounds twice, and the kernel once"
)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", ELEMENTS)
def test_every_bit_is_that_of_the_op_on_cpu(
    emulated: Emulator, dtype: str, head_dim: int, alpha: float
) -> None:
    tokens = 4
    ours, theirs = (state(dtype, tokens, head_dim=head_dim) for _ in range(2))
    turn = angles(head_dim // 6 + 1)
    for _ in range(3):
        run(emulated, ours, turn, tokens, alpha, dtype)
        keys, values, key_master, value_master = theirs
        ema_sink_update(keys, values, key_master, value_master, torch.tensor(2), turn, tokens, alpha)
    for a, b in zip(ours, theirs):
        assert torch.equal(a, b)


def test_strides_of_a_view(emulated: Emulator) -> None:
    """Caches and masters with tokens before heads in memory give what contiguous ones give."""
    tokens = 4
    plain, viewed = (state("bf16", tokens) for _ in range(2))
    viewed = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in viewed]
    turn = angles(12)
    run(emulated, plain, turn, tokens, 0.9, "bf16")
    run(emulated, viewed, turn, tokens, 0.9, "bf16")
    for a, b in zip(plain, viewed):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_every_byte_moves_once(emulated: Emulator, dtype: str) -> None:
    tokens, pairs = 4, 12
    tensors = state(dtype, tokens)
    run(emulated, tensors, angles(pairs), tokens, 0.9, dtype)
    counters = emulated.counters()
    elements, master_bytes = 2 * tensors[2].numel(), tensors[2].element_size()
    threads = elements // 8  # tokens * head_dim fills the blocks of threads
    slots, turns = 8 * 2 * 2 * 256, 8 * pairs * 2 * tokens
    assert threads <= 2 * 2 * 256
    sink_bytes = 2 if dtype == "bf16" else 0  # a float32 master holds all there is to know
    assert counters.bytes_loaded == elements * (2 + sink_bytes + master_bytes) + slots + turns
    assert counters.bytes_stored == elements * (2 + master_bytes)


def drive(emulated: Emulator, dtype: str, evictions: int, alpha: float) -> dict[str, tuple[float, float]]:
    """Sinks after many evictions against float64's.

    Returns:
        For the master, the slot and a plain average in the slot's dtype: distance to float64's relative
        to how far that moved, and relative to its size.
    """
    tokens = 2
    tensors = state(dtype, tokens, heads=1)
    values = tensors[1]
    exact, plain = values[:, :, :tokens].double(), values[:, :, :tokens].clone()
    start = exact.clone()
    turn = torch.tensor([[1.0, 0.0]])
    generator = torch.Generator().manual_seed(9)
    for _ in range(evictions):
        chunk = torch.randn(exact.shape, generator=generator).to(values.dtype)
        values[:, :, 2 * tokens :] = chunk
        run(emulated, tensors, turn, tokens, alpha, dtype)
        exact = alpha * exact + (1 - alpha) * chunk.double()
        plain = alpha * plain + (1 - alpha) * chunk
    slot = values[:, :, :tokens]
    master = tensors[3] if MASTER_DTYPES[values.dtype] == torch.float32 else join_bits(slot, tensors[3])
    distances = {"master": master, "slot": slot, "plain": plain}
    return {
        name: tuple(((x.double() - exact).norm() / scale.norm()).item() for scale in (exact - start, exact))
        for name, x in distances.items()
    }


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_master_after_a_thousand_updates(emulated: Emulator, dtype: str) -> None:
    error = drive(emulated, dtype, 1000, 0.999)["master"][1]
    print(f"{dtype} master after 1,000 updates: {error:.2e} off, relative L2")
    assert error <= 1e-6


def test_bfloat16_does_not_stall(emulated: Emulator) -> None:
    """At alpha = 0.999 a plain bfloat16 average hardly moves; the slot follows float64 all the same."""
    moved = {name: errors[0] for name, errors in drive(emulated, "bf16", 200, 0.999).items()}
    print(", ".join(f"{name} {error:.2%} off" for name, error in moved.items()))
    assert moved["master"] < 1e-5
    assert moved["slot"] < 0.01
    assert moved["plain"] > 0.5


REFUSED = {
    "keys must be aligned to 16 bytes, got an address 2 bytes past": lambda t: [shift(t[0]), *t[1:]],
    "value_master must be aligned to 16 bytes": lambda t: [*t[:3], shift(t[3])],
    "values must be contiguous in its last dimension.*got stride": lambda t: [t[0], transposed(t[1]), *t[2:]],
    "head_dim must be 64 or 128, got 96": lambda t: [torch.zeros(1, 2, 12, 96, dtype=x.dtype) for x in t],
    "values is written and must not be expanded": lambda t: [t[0], t[1][:, :1].expand_as(t[1]), *t[2:]],
    "key_master must be int16, got float32": lambda t: [*t[:2], t[2].float(), t[3]],
    r"key_master must be \[1, 2, 4, 64\], got \[1, 2, 3, 64\]": lambda t: [*t[:2], t[2][:, :, :3], t[3]],
    "key_master must have strides of whole 16 bytes": lambda t: [*t[:2], padded(t[2]), t[3]],
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_tensors(emulated: Emulator, message: str) -> None:
    with pytest.raises(RefusedError, match=f"^ema_sink_update: {message}"):
        run(emulated, REFUSED[message](state("bf16", 4)), angles(12), 4, 0.9, "bf16")


def test_refuses_numbers(emulated: Emulator) -> None:
    for tokens, pairs, alpha, dtype, message in (
        (5, 12, 0.9, "bf16", "capacity must be a multiple of a slot's 5 tokens, got 12"),
        (0, 12, 0.9, "bf16", r"tokens must lie in 1..16777216, got 0"),
        (4, 33, 0.9, "bf16", r"time_pairs must lie in 0..32, got 33"),
        (4, 12, 1.5, "bf16", r"alpha must lie in \[0, 1\], got 1.5"),
        (4, 12, 0.9, "float32", r"dtype must be 0 \(bfloat16\) or 1 \(float16\), got 2"),
    ):
        with pytest.raises(RefusedError, match=message):
            run(emulated, state("bf16", 4), angles(pairs), tokens, alpha, dtype)


def test_refuses_nothing_where_something_must_be(emulated: Emulator) -> None:
    with pytest.raises(RefusedError, match="value_master must be a device pointer, got null"):
        run(emulated, [*state("bf16", 4)[:3], None], angles(12), 4, 0.9, "bf16")
