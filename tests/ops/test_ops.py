"""The ops: against plain formulae, under opcheck and torch.compile, and their refusals."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from pyrf.ops import ema_sink_update, library, norm_rope_append, ring_attention
from pyrf.ops.ema_sink_update import MASTER_DTYPES, join_bits, split_bits
from pyrf.ops.norm_rope_append import norm_rotate
from tests.support.emulated_native import RUN_CUDA
from tests.support.op_arguments import (
    DIM,
    HEADS,
    OPS,
    SLOTS,
    TOKENS,
    append_arguments,
    attention_arguments,
    change,
    draw,
    sink_arguments,
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPS)
def test_opcheck(name, dtype):
    opcheck(getattr(torch.ops.pyrf, name).default, tuple(OPS[name][1](dtype)))


SCHEMAS = {
    "add_norm": "(Tensor y, Tensor? residual, Tensor? gate, Tensor? bias, Tensor? weight, Tensor? shift, "
    "float eps, bool rms, bool silu) -> Tensor[]",
    "add_norm_e4m3": "(Tensor y, Tensor? residual, Tensor? gate, Tensor? bias, Tensor? weight, "
    "Tensor? shift, float eps, bool rms, bool silu) -> Tensor[]",
    "quantise_rows": "(Tensor x, bool gelu) -> (Tensor, Tensor)",
    "ema_sink_update": "(Tensor(a!) keys, Tensor(b!) values, Tensor(c!)? key_master, Tensor(d!)? "
    "value_master, Tensor slot, Tensor turn, SymInt tokens, float alpha) -> ()",
    "norm_rope_append": "(Tensor q, Tensor k, Tensor v, Tensor norm_q, Tensor norm_k, float eps, "
    "Tensor rope, Tensor slot, Tensor(a!) keys, Tensor(b!) values) -> Tensor",
    "ring_attention": "(Tensor q, Tensor keys, Tensor values, SymInt length) -> Tensor",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas(name):
    """Of graphs that were saved, too: they are not to change."""
    assert str(getattr(torch.ops.pyrf, name).default._schema) == f"pyrf::{name}{SCHEMAS[name]}"


@pytest.mark.parametrize("name", OPS)
def test_arguments_are_checked_once(name, monkeypatch):
    """Also where a path falls back to plain torch, as that of CUDA devices does for float32."""
    module = import_module(f"pyrf.ops.{name}")
    check, seen = module.expect_cache, []

    def expect_cache(*caches):
        seen.append(name)
        return check(*caches)

    monkeypatch.setattr(module, "expect_cache", expect_cache)
    for run in (OPS[name][0], RUN_CUDA[name]):
        run(*OPS[name][1]())
    assert seen == [name, name]


@pytest.mark.parametrize("name", OPS)
def test_compiles_whole(name):
    op, arguments = OPS[name]

    def around(*args):
        out = op(*args)
        return (out * 2, args[1] + 1) if out is not None else (args[0] + 1, args[1] + 1)

    eager, compiled = arguments(), arguments()
    expected = around(*eager)
    got = torch.compile(around, fullgraph=True, backend="aot_eager")(*compiled)
    torch.testing.assert_close(got, expected)
    for ours, theirs in zip(compiled, eager):
        assert not isinstance(ours, torch.Tensor) or torch.equal(ours, theirs)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_rope_append(dtype, fused):
    arguments = append_arguments(dtype, fused=fused)
    q, k, v, norm_q, norm_k, eps, rope, _, keys, values = arguments
    before = keys.clone(), values.clone()
    got = norm_rope_append(*arguments)
    wide = torch.float64
    inside = slice(TOKENS, 2 * TOKENS)
    atol, rtol = (0.03, 0.01) if dtype in MASTER_DTYPES else (1e-6, 1e-6)
    for result, x, weight in ((got, q, norm_q), (keys[:, :, inside], k, norm_k)):
        expected = norm_rotate(x.to(wide), weight.to(wide), eps, rope.to(wide))
        torch.testing.assert_close(result.to(wide), expected, atol=atol, rtol=rtol)
    assert torch.equal(values[:, :, inside], v.unflatten(-1, (HEADS, DIM)).transpose(1, 2))
    for buffer, old in ((keys, before[0]), (values, before[1])):
        assert torch.equal(buffer[:, :, :TOKENS], old[:, :, :TOKENS])
        assert torch.equal(buffer[:, :, 2 * TOKENS :], old[:, :, 2 * TOKENS :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ring_attention_sees_the_prefix_only(dtype):
    q, keys, values, length = attention_arguments(dtype)
    keys[:, :, length:] = values[:, :, length:] = float("nan")
    got = ring_attention(q, keys, values, length)
    expected = F.scaled_dot_product_attention(
        q.double(), keys[:, :, :length].double(), values[:, :, :length].double()
    )
    tolerance = 0.02 if dtype in MASTER_DTYPES else 1e-6
    assert got.is_contiguous()
    expected = expected.transpose(1, 2).flatten(2)
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ema_sink_update(dtype):
    arguments = sink_arguments(dtype)
    keys, values, _, _, slot, turn, tokens, alpha = arguments
    evicted = slice(int(slot) * tokens, (int(slot) + 1) * tokens)
    sink = keys[:, :, :tokens].double()
    pairs = torch.view_as_complex(sink.unflatten(-1, (-1, 2)).contiguous())
    pairs[..., :2] *= torch.view_as_complex(turn.double())
    expected_keys = alpha * torch.view_as_real(pairs).flatten(-2) + (1 - alpha) * keys[:, :, evicted].double()
    expected_values = alpha * values[:, :, :tokens].double() + (1 - alpha) * values[:, :, evicted].double()
    others = keys[:, :, tokens:].clone(), values[:, :, tokens:].clone()
    ema_sink_update(*arguments)
    tolerance = {torch.bfloat16: 0.02, torch.float16: 0.003}.get(dtype, 1e-6)
    torch.testing.assert_close(keys[:, :, :tokens].double(), expected_keys, atol=tolerance, rtol=0)
    torch.testing.assert_close(values[:, :, :tokens].double(), expected_values, atol=tolerance, rtol=0)
    assert torch.equal(keys[:, :, tokens:], others[0])
    assert torch.equal(values[:, :, tokens:], others[1])


def test_split_bits_is_exact_for_every_kind_of_float():
    ties = torch.arange(-(2**20), 2**20, 37, dtype=torch.int32) * 0x8000
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-38, 3.3e38, float("inf"), -float("inf")])
    for x in (ties.view(torch.float32), draw(100_000), special):
        x = x[~x.isnan()]
        high, low = split_bits(x)
        assert torch.equal(join_bits(high, low).view(torch.int32), x.view(torch.int32))
        finite = x.abs() < 3e38
        assert ((high.float() - x).abs() <= x.abs() / 256)[finite & (x.abs() > 1e-37)].all()


def drive_sink(dtype, evictions=200, alpha=0.999):
    """Sinks after many evictions: the op's, a plain average in the same dtype, and float64's.

    Returns:
        For each the distance to float64's, relative to how far that one moved.
    """
    keys, values, key_master, value_master, slot, turn, tokens, _ = sink_arguments(dtype)
    evicted = slice(int(slot) * tokens, (int(slot) + 1) * tokens)
    start = values[:, :, :tokens].double()
    exact, plain = start.clone(), values[:, :, :tokens].clone()
    generator = torch.Generator().manual_seed(9)
    for _ in range(evictions):
        chunk = (2 + torch.randn(start.shape, generator=generator)).to(dtype)
        values[:, :, evicted] = chunk
        ema_sink_update(keys, values, key_master, value_master, slot, turn, tokens, alpha)
        exact = alpha * exact + (1 - alpha) * chunk.double()
        plain = alpha * plain + (1 - alpha) * chunk
    master = value_master if dtype == torch.float16 else join_bits(values[:, :, :tokens], value_master)
    moved = (exact - start).norm()
    return [((x.double() - exact).norm() / moved).item() for x in (master, values[:, :, :tokens], plain)]


def test_bfloat16_sink_follows_float64_over_200_evictions():
    master, slot, plain = drive_sink(torch.bfloat16)
    assert master < 1e-5
    assert slot < 0.01
    assert plain > 0.3


def test_float16_sink_follows_float64_over_200_evictions():
    master, slot, plain = drive_sink(torch.float16)
    assert master < 1e-5
    assert slot < 0.01 < plain


@pytest.mark.parametrize("name", ["norm_rope_append", "ema_sink_update"])
def test_slots_read_on_the_device_are_the_same_slots(name, monkeypatch):
    """The path of other devices, where the host must not wait for the slot's value."""
    op, arguments = OPS[name]
    host, device = arguments(torch.float64), arguments(torch.float64)  # plain torch, on a CPU too
    op(*host)
    monkeypatch.setattr(library, "_on_host", lambda slot: False)
    op(*device)
    for ours, theirs in zip(device, host):
        assert not isinstance(ours, torch.Tensor) or torch.equal(ours, theirs)


BAD = [
    ("norm_rope_append", 0, lambda q: q[:, :, :-2], "q must be"),
    ("norm_rope_append", 0, lambda q: q[0], "q must be"),
    ("norm_rope_append", 0, lambda q: q.mT.contiguous().mT, "q must be contiguous in its channels"),
    ("norm_rope_append", 6, lambda rope: rope.mT.contiguous().mT, "rope must be contiguous"),
    ("norm_rope_append", 1, lambda k: k.double(), "k must be"),
    ("norm_rope_append", 2, lambda v: v[:1], "v must be"),
    ("norm_rope_append", 3, lambda w: w[:-1], "norm_q must be"),
    ("norm_rope_append", 4, lambda w: w.half(), "norm_k must be"),
    ("norm_rope_append", 6, lambda rope: rope.half(), "rope must be"),
    ("norm_rope_append", 7, torch.tensor(1.0), "slot must be"),
    ("norm_rope_append", 7, torch.tensor(-1), "slot must lie in 0..2, got -1"),
    ("norm_rope_append", 7, torch.tensor(SLOTS), "slot must lie in 0..2, got 3"),
    ("norm_rope_append", 7, torch.tensor(1, device="meta"), r"slot must be .* on cpu, got .* on meta"),
    ("norm_rope_append", 8, lambda keys: keys[0], "keys must be"),
    ("norm_rope_append", 9, lambda values: values[:, :, :-1], "values must be"),
    ("norm_rope_append", 8, lambda keys: keys.mT.contiguous().mT, "contiguous in head_dim"),
    ("norm_rope_append", 9, lambda values: values.half(), r"values must be .*float32 .*, got .*float16 "),
    ("ring_attention", 0, lambda q: q[..., :-2], "q must be"),
    ("ring_attention", 0, lambda q: q.double(), "q must be"),
    ("ring_attention", 1, lambda keys: keys.int(), "keys must be"),
    ("ring_attention", 2, lambda values: values.mT.contiguous().mT, "contiguous in head_dim"),
    ("ring_attention", 3, 0, "length must lie"),
    ("ring_attention", 3, SLOTS * TOKENS + 1, "length must lie"),
    ("ema_sink_update", 2, torch.zeros(1), "key_master must be"),
    ("ema_sink_update", 4, torch.tensor([2]), "slot must be"),
    ("ema_sink_update", 4, torch.tensor(0), "slot must lie in 1..2, got 0"),
    ("ema_sink_update", 4, torch.tensor(SLOTS), "slot must lie in 1..2, got 3"),
    ("ema_sink_update", 5, lambda turn: turn.T.contiguous().T[:, :1], "turn must be"),
    ("ema_sink_update", 6, 5, "whole slots"),
    ("ema_sink_update", 7, 1.5, "alpha must lie"),
]


@pytest.mark.parametrize(("name", "index", "value", "message"), BAD)
def test_refuses_and_writes_nothing(name, index, value, message):
    op, make = OPS[name]
    arguments, untouched = (change(make(), index, value) for _ in range(2))
    with pytest.raises(ValueError, match=message):
        op(*arguments)
    for ours, theirs in zip(arguments, untouched):
        if isinstance(ours, torch.Tensor) and ours.device.type == "cpu":
            assert torch.equal(ours, theirs)


def test_refuses_a_missing_master():
    with pytest.raises(ValueError, match="key_master must be"):
        ema_sink_update(*change(sink_arguments(torch.bfloat16), 2, None))
