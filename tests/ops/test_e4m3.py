"""The ops over a cache of e4m3: rounding against a table of all its numbers, attention against float64."""

import sys
import warnings
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch.library import opcheck

from pyrf.ops import cudnn_fp8, e4m3, ema_sink_update, library, native, norm_rope_append, ring_attention
from pyrf.ops.attention_choice import CHOICE, AttentionChoice, AttentionRefusedError
from pyrf.ops.e4m3 import E4M3, attend, to_e4m3, widened
from tests.support.emulated_native import RUN_CUDA, cpu_tensors_take_the_cuda_path
from tests.support.op_arguments import (
    BATCH,
    DIM,
    HEADS,
    TOKENS,
    append_arguments,
    attention_arguments,
    draw,
    sink_arguments,
)

norm_rope, sink = (import_module(f"pyrf.ops.{name}") for name in ("norm_rope_append", "ema_sink_update"))
BITS = torch.arange(256, dtype=torch.uint8)


def numbers():
    """All finite e4m3 numbers, from their bits: (-1)^s 2^(e - 7) (1 + m / 8), and 2^-6 m / 8 for e = 0."""
    sign, exponent, fraction = BITS >> 7, (BITS >> 3) & 15, BITS & 7
    size = torch.where(
        exponent > 0, 2.0 ** (exponent.double() - 7) * (1 + fraction / 8), 2.0**-6 * fraction / 8
    )
    return torch.where(sign == 1, -size, size)[(BITS & 127) != 127], BITS[(BITS & 127) != 127]


def test_rounds_every_bfloat16_to_the_nearest_and_ties_to_even():
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    x = every[~every.isnan()]
    exact = x.double().clamp(-448, 448)
    table, bits = numbers()
    got = to_e4m3(x)
    distances = (exact[:, None] - table).abs()
    nearest = distances.amin(1)
    assert torch.equal((exact - got.double()).abs(), nearest)
    tied = (distances == nearest[:, None]).sum(1) > 1
    tied &= got.double() != 0  # of zeros, the sign is the number's
    assert tied.sum() > 100
    assert not (got.view(torch.uint8)[tied] & 1).any()
    assert len(bits) == 254


def test_nan_stays():
    assert to_e4m3(torch.tensor([float("nan"), 1e9, -1e9])).float().tolist()[1:] == [448.0, -448.0]
    assert to_e4m3(torch.tensor([float("nan")])).isnan().all()


def in_e4m3(arguments, *indices):
    for index in indices:
        arguments[index] = to_e4m3(arguments[index])
    return arguments


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_appended_is_the_rounded_rest(dtype, on_host, monkeypatch):
    monkeypatch.setattr(library, "_on_host", lambda slot: on_host)
    wide, narrow = append_arguments(dtype), in_e4m3(append_arguments(dtype), 8, 9)
    before = [x.float() for x in narrow[8:]]
    expected, got = norm_rope_append(*wide), norm_rope_append(*narrow)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected)
    inside = slice(TOKENS, 2 * TOKENS)
    x = wide[2].unflatten(-1, (HEADS, DIM)).transpose(1, 2)
    assert torch.equal(narrow[9][:, :, inside].float(), to_e4m3(x).float())
    torch.testing.assert_close(
        narrow[8][:, :, inside].float(), wide[8][:, :, inside].float(), rtol=2**-4 * 1.1, atol=2**-10 * 1.1
    )
    for cache, old in zip(narrow[8:], before):
        assert torch.equal(cache[:, :, :TOKENS].float(), old[:, :, :TOKENS])
        assert torch.equal(cache[:, :, 2 * TOKENS :].float(), old[:, :, 2 * TOKENS :])


def test_the_sink_follows_float64_over_200_evictions_and_its_slot_is_the_rounded_master():
    keys, values, *_, slot, turn, tokens, _ = sink_arguments(torch.float32)
    key_master, value_master = masters = [x[:, :, :tokens].clone() for x in (keys, values)]
    keys, values = to_e4m3(keys), to_e4m3(values)
    exact = value_master.double()
    for seed in range(200):
        chunk = to_e4m3(2 + draw(*exact.shape, seed=seed))
        values[:, :, 2 * tokens :] = chunk
        ema_sink_update(keys, values, key_master, value_master, slot, turn, tokens, 0.999)
        exact = 0.999 * exact + 0.001 * chunk.double()
    assert ((value_master - exact).norm() / exact.norm()).item() < 1e-6
    for cache, master in zip((keys, values), masters):
        assert torch.equal(cache[:, :, :tokens].float(), to_e4m3(master).float())


@pytest.fixture
def on_kernels(emulator, monkeypatch):
    """Ops on CPU tensors run the CUDA path on emulated kernels."""
    emulator.calls.clear()
    with cpu_tensors_take_the_cuda_path(monkeypatch, emulator):
        yield emulator


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_write_what_torch_writes(dtype, on_kernels):
    plain, ours = (in_e4m3(append_arguments(dtype, 64), 8, 9) for _ in range(2))
    torch.testing.assert_close(
        norm_rope_append(*ours), norm_rope._run(norm_rope.Args(*plain)), atol=0.02, rtol=0.02
    )
    assert torch.equal(ours[9].float(), plain[9].float())
    torch.testing.assert_close(ours[8].float(), plain[8].float(), rtol=2**-3, atol=2**-9)
    assert (ours[8].float() != plain[8].float()).double().mean() < 0.01
    assert on_kernels.calls == ["norm_rope_append"]
    plain, ours = (in_e4m3(sink_arguments(torch.float16, 64), 0, 1) for _ in range(2))
    ema_sink_update(*ours)
    sink._run(sink.Args(*plain))
    for a, b in zip(ours[:4], plain[:4]):
        torch.testing.assert_close(a.float(), b.float(), rtol=2**-3 if a.dtype == E4M3 else 1e-6, atol=1e-6)
    assert on_kernels.calls == ["norm_rope_append", "ema_sink_update"]


@pytest.mark.parametrize(("dtype", "head_dim"), [(torch.float32, 64), (torch.bfloat16, 96)])
def test_what_the_kernels_do_not_take_is_plain_torch(dtype, head_dim, on_kernels):
    plain, ours = (in_e4m3(append_arguments(dtype, head_dim), 8, 9) for _ in range(2))
    assert torch.equal(norm_rope_append(*ours), norm_rope._run(norm_rope.Args(*plain)))
    assert torch.equal(ours[8].float(), plain[8].float())
    assert not on_kernels.calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_attention_is_that_of_rounded_numbers(dtype, monkeypatch):
    arguments = attention_arguments(dtype)
    q, length = arguments[0], arguments[3]
    arguments[1][:, :, length:] = arguments[2][:, :, length:] = float("nan")
    q, keys, values, length = in_e4m3(arguments, 1, 2)
    got = ring_attention(q, keys, values, length)
    exact = torch.nn.functional.scaled_dot_product_attention(*widened(q.double(), keys, values, length))
    exact = exact.transpose(1, 2).flatten(2)
    assert got.dtype == dtype
    assert 1e-4 < ((got - exact).norm() / exact.norm()).item() < 0.03
    monkeypatch.setattr(e4m3, "MAX_SCORES", BATCH * HEADS * length * 4)  # 4 rows at a time, and 2
    torch.testing.assert_close(ring_attention(q, keys, values, length), got)


def test_large_weights_are_exact():
    """One key takes all weight: its scaled weight, 256, is an e4m3 number, and no bit is lost."""
    q = torch.full((1, 1, 3, 4), 8.0)
    keys, values = torch.full((1, 1, 5, 4), -8.0), draw(1, 1, 5, 4)
    keys[:, :, 2] = 8.0
    got = attend(q, to_e4m3(keys), to_e4m3(values), 5)
    assert torch.equal(got[0, 0], to_e4m3(values)[0, 0, 2].float().expand(3, -1))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("norm_rope_append", in_e4m3(append_arguments(), 8, 9)),
        ("ring_attention", in_e4m3(attention_arguments(), 1, 2)),
    ],
)
def test_traces(name, arguments):
    """torch compares no e4m3, which its other checks would."""
    opcheck(getattr(torch.ops.pyrf, name).default, tuple(arguments), test_utils=("test_faketensor",))


def test_refusals():
    append, attention = append_arguments(), attention_arguments()
    sink = in_e4m3(sink_arguments(), 0, 1)
    with pytest.raises(ValueError, match=r"values must be .*e4m3.*, got .*float32"):
        norm_rope_append(*in_e4m3(append, 8))
    with pytest.raises(ValueError, match=r"q must be of a float dtype beside a cache of e4m3, got .*e4m3"):
        ring_attention(*in_e4m3(attention, 0, 1, 2))
    with pytest.raises(ValueError, match=r"key_master must be .*float32 for a cache of .*e4m3"):
        ema_sink_update(*sink)


class Clock:
    """Takes no time for cuDNN, which gives what SDPA gives, times a factor."""

    def __init__(self, monkeypatch, result):
        self.timed = []
        choice = AttentionChoice(self.time, lambda: False)
        monkeypatch.setattr(import_module("pyrf.ops.ring_attention"), "CHOICE", choice)
        monkeypatch.setattr(cudnn_fp8, "attend", result)
        self.choice = choice

    def time(self, run, device):
        self.timed.append(run)
        return float(len(self.timed) == 1)  # SDPA is the first


def on_cuda(monkeypatch):
    """Without pyrf's own kernel."""
    monkeypatch.setattr(native, "kernels", None)
    return RUN_CUDA["ring_attention"](*in_e4m3(attention_arguments(torch.bfloat16), 1, 2))


def test_cudnn_is_taken_when_it_is_near_and_faster(monkeypatch):
    clock = Clock(monkeypatch, attend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = on_cuda(monkeypatch)
    assert [choice.backend for choice in clock.choice.made.values()] == ["cudnn"]
    arguments = in_e4m3(attention_arguments(torch.bfloat16), 1, 2)
    assert torch.equal(got, attend(*arguments).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_cudnn_is_refused_when_its_result_is_far(factor, monkeypatch):
    clock = Clock(monkeypatch, lambda *arguments: factor * attend(*arguments))
    with pytest.warns(RuntimeWarning, match=r"cudnn is not used: its result is .* off, and 0.03 is allowed"):
        on_cuda(monkeypatch)
    assert [choice.backend for choice in clock.choice.made.values()] == ["sdpa"]


def test_cudnn_is_refused_when_it_says_so(monkeypatch):
    def refuse(*arguments):
        raise AttentionRefusedError("no kernel")

    clock = Clock(monkeypatch, refuse)
    with pytest.warns(RuntimeWarning, match="cudnn is not used: no kernel"):
        on_cuda(monkeypatch)
    assert len(clock.timed) == 1


def attention_in_e4m3(dtype=torch.bfloat16, head_dim=64):
    return in_e4m3(attention_arguments(dtype, head_dim), 1, 2)


def test_pyrf_s_kernel_serves_when_it_is_asked_for(on_kernels, monkeypatch):
    monkeypatch.setattr(CHOICE, "_mode", "pyrf")
    got = ring_attention(*attention_in_e4m3())
    assert on_kernels.calls == ["ring_attention_e4m3"]
    expected = attend(*attention_in_e4m3()).transpose(1, 2).flatten(2)
    assert (got - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize(
    ("arguments", "capability", "reason"),
    [
        (attention_in_e4m3(head_dim=96), (9, 0), "head_dim of 64 or 128, got 96"),
        (attention_in_e4m3(torch.float32), (9, 0), "bfloat16 and float16, got torch.float32"),
        (attention_in_e4m3(), (8, 6), "capability 8.9 or newer, got 8.6"),
    ],
)
def test_pyrf_s_kernel_says_what_it_does_not_take(arguments, capability, reason, on_kernels, monkeypatch):
    monkeypatch.setattr(native, "_capability", lambda device: capability)
    monkeypatch.setattr(CHOICE, "_mode", "pyrf")
    with pytest.raises(ValueError, match=f"set to pyrf, but .*{reason}.*; set it to auto or sdpa"):
        ring_attention(*arguments)
    monkeypatch.setattr(CHOICE, "_mode", "sdpa")
    assert ring_attention(*arguments).isfinite().all()
    assert not on_kernels.calls


@pytest.mark.parametrize("fastest", ["pyrf", "cudnn", "sdpa"])
def test_the_fastest_of_those_that_are_near_is_taken(fastest, on_kernels, monkeypatch):
    clock = Clock(monkeypatch, attend)
    seconds = iter([float(name != fastest) for name in ("sdpa", "cudnn", "pyrf")])
    clock.choice._timer = lambda run, device: next(seconds)
    ring_attention(*attention_in_e4m3())
    assert [choice.backend for choice in clock.choice.made.values()] == [fastest]
    calls = 2 if fastest == "pyrf" else 1  # to be compared, then to be used
    assert on_kernels.calls == calls * ["ring_attention_e4m3"]


def test_pyrf_s_kernel_is_refused_when_its_result_is_far(on_kernels, monkeypatch):
    clock = Clock(monkeypatch, attend)
    module = import_module("pyrf.ops.ring_attention")
    monkeypatch.setattr(module, "_e4m3_kernel", lambda args: 1.1 * module._run(args))
    with pytest.warns(RuntimeWarning, match=r"pyrf is not used: its result is .* off, and 0.03 is allowed"):
        ring_attention(*attention_in_e4m3())
    assert [choice.backend for choice in clock.choice.made.values()] == ["cudnn"]


@pytest.mark.parametrize(
    ("capability", "module", "reason"),
    [
        ((8, 9), None, "Hopper"),
        ((9, 0), None, "front end is missing"),
        ((9, 0), SimpleNamespace(backend_version=lambda: 90300), "must be 91400 or newer, got 90300"),
    ],
)
def test_where_cudnn_does_not_serve(capability, module, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setitem(sys.modules, "cudnn", module)
    with pytest.raises(AttentionRefusedError, match=reason):
        cudnn_fp8.attend(*in_e4m3(attention_arguments(torch.bfloat16), 1, 2))


def test_the_front_end_takes_our_graph(monkeypatch):
    """As far as its own checks go; without a GPU it then finds no plan, which is said."""
    cudnn = pytest.importorskip("cudnn")
    monkeypatch.setattr(cudnn_fp8, "_front_end", lambda device: cudnn)
    monkeypatch.setattr(cudnn_fp8, "_handle", lambda device: None)
    q = draw(1, 64, 2, 64).bfloat16().transpose(1, 2)
    keys = to_e4m3(draw(1, 2, 128, 64))
    layouts = [(x.shape, x.stride()) for x in (q, keys, keys, q)]
    seen = []
    monkeypatch.setattr(cudnn.pygraph, "build", lambda graph, modes: seen.append(graph.validate()))
    monkeypatch.setattr(cudnn.pygraph, "get_workspace_size", lambda graph: 0)
    _, names, _ = cudnn_fp8._plan.__wrapped__(torch.device("cuda", 0), torch.bfloat16, *layouts)
    assert len(seen) == 1
    assert {"q", "k", "v", "out", "amax_s", "amax_o"} < set(names)
    with pytest.raises(AttentionRefusedError, match=r"bfloat16 or float16, got .*float32"):
        cudnn_fp8._plan.__wrapped__(torch.device("cuda", 0), torch.float32, *layouts)
