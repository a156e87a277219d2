"""The CUDA side of the ops on a CPU: its kernels emulated, its torch path traced, its launches recorded.

What stays unproven without a GPU is the launch itself: streams, devices and the kernels' scheduling.
"""

from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.ops import native
from pyrf.ops.attention_choice import CHOICE, AttentionChoice
from tests.support.emulated_native import RUN_CUDA, cpu_tensors_take_the_cuda_path
from tests.support.op_arguments import DIM, OPS, SLOTS, TOKENS, change
from tests.support.tiny import CONFIG, SIZE, network, prompts

HALF = (torch.bfloat16, torch.float16)
ULP = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
LENGTH, ALPHA = 3, 7


@pytest.fixture
def emulated(emulator, monkeypatch):
    """Ops on CPU tensors run the CUDA path on emulated kernels."""
    emulator.calls.clear()
    monkeypatch.setattr(CHOICE, "_mode", "pyrf")
    with cpu_tensors_take_the_cuda_path(monkeypatch, emulator):
        yield emulator


def same(a, b):
    """Whether two arguments are equal bit for bit."""
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def strided(arguments, name):
    """The same arguments where every tensor that may be strided is a part of a larger one."""
    names = {
        "norm_rope_append": {0: 1, 1: 1, 2: 1, 8: 2, 9: 2},
        "ring_attention": {0: 2, 1: 2, 2: 2},
        "ema_sink_update": {0: 2, 1: 2, 2: 2, 3: 2},
    }[name]
    for index, dim in names.items():
        x = arguments[index]
        room = list(x.shape)
        room[dim] += 1
        arguments[index] = torch.zeros(room, dtype=x.dtype).narrow(dim, 0, x.shape[dim]).copy_(x)
    return arguments


@pytest.mark.parametrize("is_strided", [False, True])
@pytest.mark.parametrize("head_dim", native.HEAD_DIMS)
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", OPS)
def test_kernels_equal_plain_torch(name, dtype, head_dim, is_strided, emulator, monkeypatch):
    op, make = OPS[name]
    plain, ours = make(dtype, head_dim), make(dtype, head_dim)
    if is_strided:
        ours = strided(ours, name)
    before = make(dtype, head_dim)
    expected = op(*plain)
    monkeypatch.setattr(CHOICE, "_mode", "pyrf")
    emulator.calls.clear()
    with cpu_tensors_take_the_cuda_path(monkeypatch, emulator):
        got = op(*ours)
    assert emulator.calls == [name]
    atol, rtol = 8 * ULP[dtype], 2 * ULP[dtype]
    if got is not None:
        assert got.is_contiguous() == expected.is_contiguous()
        torch.testing.assert_close(got, expected, atol=atol, rtol=rtol)
    for a, b, untouched in zip(ours, plain, before):
        if same(b, untouched):
            assert same(a, untouched)
        elif b.dtype != torch.int16:  # the hidden bits of a bfloat16 differ where its last bit does
            torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


@pytest.mark.parametrize("dtype", HALF)
def test_a_stream_on_the_kernels_stays_near_float32(dtype, emulated, monkeypatch):
    """Five chunks: the warm-up, two evictions, and a prompt change that computes the ring again."""
    config, stream = (
        replace(CONFIG, dim=128, ffn_dim=64),
        StreamConfig(sink_alpha=0.9, denoising_steps=(1000,)),
    )

    def run(dtype):
        model = network(config, dtype=dtype)[0]
        rollout = TorchRollout(model, stream, 1, SIZE, prompts(dtype=torch.float32))
        loop = rollout.loop([0])
        chunks = [loop.next_chunk() for _ in range(4)]
        rollout.set_prompt(prompts(seed=1, dtype=torch.float32), recache=True)
        return torch.cat([*chunks, loop.next_chunk()], 1)

    got = run(dtype)
    assert {name: emulated.calls.count(name) for name in set(emulated.calls)} == {
        "norm_rope_append": 24,  # 5 chunks of 2 calls and 2 rewrites, 2 layers
        "ring_attention": 17,  # the last layer of a clean call or a rewrite only appends
        "ema_sink_update": 4,  # 2 evictions
        "add_norm": 34,  # two where there is attention
    }
    monkeypatch.setattr(CHOICE, "_mode", "auto")  # float32 is for plain torch, whatever is forced
    exact = run(torch.float32)
    assert len(emulated.calls) == 79
    assert (got - exact).norm() / exact.norm() < {torch.bfloat16: 0.03, torch.float16: 0.005}[dtype]


def misaligned(x):
    """The same values, 2 bytes past an aligned address."""
    return torch.zeros(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape).copy_(x)


def oddly_strided(x):
    """The same values in rows of an odd number of elements."""
    return torch.zeros(*x.shape[:-1], x.shape[-1] + 1, dtype=x.dtype)[..., :-1].copy_(x)


def uncontiguous(x):
    return torch.stack((x, x), -1)[..., 0]


BAD = [
    *(("norm_rope_append", i, misaligned, f"{x} must be aligned to 16 bytes") for i, x in enumerate("qkv")),
    *(("norm_rope_append", i, oddly_strided, f"{x} must have strides") for i, x in enumerate("qkv")),
    *(("norm_rope_append", i, uncontiguous, f"{x} must be contiguous") for i, x in enumerate("qkv")),
    ("norm_rope_append", 3, misaligned, "norm_q must be aligned"),
    ("norm_rope_append", 3, uncontiguous, "norm_q must be contiguous"),
    ("norm_rope_append", 4, uncontiguous, "norm_k must be contiguous"),
    ("norm_rope_append", 6, uncontiguous, "rope must be contiguous"),
    ("norm_rope_append", 6, lambda rope: rope.double(), "rope must be .*float32.*, got .*float64"),
    ("norm_rope_append", 8, misaligned, "keys must be aligned"),
    ("norm_rope_append", 9, oddly_strided, "values must have strides"),
    ("ring_attention", 0, misaligned, "q must be aligned"),
    ("ring_attention", 1, oddly_strided, "keys must have strides"),
    ("ring_attention", 2, misaligned, "values must be aligned"),
    ("ring_attention", LENGTH, SLOTS * TOKENS + 1, "length must lie in 1..18, got 19"),
    ("ema_sink_update", 0, misaligned, "keys must be aligned"),
    ("ema_sink_update", 1, oddly_strided, "values must have strides"),
    ("ema_sink_update", 2, misaligned, "key_master must be aligned"),
    ("ema_sink_update", 3, lambda master: master.int(), "value_master must be .*int16.*, got .*int32"),
    ("ema_sink_update", 5, uncontiguous, "turn must be contiguous"),
    ("ema_sink_update", ALPHA, -0.1, "alpha must lie in"),
]


@pytest.mark.parametrize(("name", "index", "value", "message"), BAD)
def test_kernels_refuse_and_nothing_is_launched(name, index, value, message, emulated):
    op, make = OPS[name]
    arguments = change(make(torch.bfloat16, 64), index, value)
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in arguments]
    with pytest.raises(ValueError, match=message):
        op(*arguments)
    assert not emulated.calls
    assert all(same(a, b) for a, b in zip(arguments, before))


@pytest.mark.parametrize("slot", [-1, SLOTS])
@pytest.mark.parametrize("name", ["norm_rope_append", "ema_sink_update"])
def test_a_slot_that_only_the_device_knows_writes_nothing_when_out_of_range(name, slot, emulated):
    op, make = OPS[name]
    arguments = make(torch.bfloat16, 64)
    arguments[7 if name == "norm_rope_append" else 4] = torch.tensor(slot)
    before = [x.clone() if isinstance(x, torch.Tensor) else x for x in arguments]
    op(*arguments)
    assert all(same(a, b) for a, b in zip(arguments, before))


@pytest.mark.parametrize("name", OPS)
def test_a_kernel_refuses_a_head_dim_it_does_not_have(name, emulated, monkeypatch):
    """The ops never ask: `native.refusal` sends such a cache to plain torch."""
    monkeypatch.setattr(native, "refusal", lambda *_: None)
    op, make = OPS[name]
    with pytest.raises(ValueError, match="head_dim must be 64 or 128, got 96"):
        op(*make(torch.bfloat16, 96))
    assert not emulated.calls


@pytest.mark.parametrize(("dtype", "head_dim"), [(torch.bfloat16, 96), (torch.float32, 64)])
def test_what_the_kernels_do_not_serve_is_plain_torch_unless_forced(dtype, head_dim, emulated):
    for name, (op, make) in OPS.items():
        plain, ours = make(dtype, head_dim), make(dtype, head_dim)
        if name == "ring_attention":
            with pytest.raises(ValueError, match="attention is set to pyrf, but"):
                op(*ours)
        CHOICE.mode = "sdpa"
        got = op(*ours)
        CHOICE.mode = "pyrf"
        with pytest.MonkeyPatch.context() as context:
            context.setattr(native, "kernels", None)
            context.setattr(CHOICE, "_mode", "auto")
            expected = op(*plain)
        assert not emulated.calls
        assert got is None or torch.equal(got, expected)
        assert all(same(a, b) for a, b in zip(ours, plain))


@pytest.mark.parametrize("faster", ["pyrf", "sdpa"])
def test_attention_runs_on_the_faster_one(faster, emulated, monkeypatch):
    """The timer runs both; then only the chosen one is called."""

    def time(run, device):
        launches = len(emulated.calls)
        run()
        is_kernel = len(emulated.calls) > launches
        return 1.0 if is_kernel == (faster == "pyrf") else 2.0

    monkeypatch.setattr(
        import_module("pyrf.ops.ring_attention"), "CHOICE", AttentionChoice(time, lambda: False)
    )
    op, make = OPS["ring_attention"]
    for _ in range(3):
        op(*make(torch.bfloat16, 64))
    assert len(emulated.calls) == (4 if faster == "pyrf" else 1)


def test_a_launch_goes_to_the_current_stream_of_the_tensors_device(monkeypatch):
    seen = []

    @contextmanager
    def device(wanted):
        seen.append(("enter", wanted))
        yield
        seen.append(("exit", wanted))

    kernels = SimpleNamespace(ring_attention=lambda *arguments: seen.append(arguments))
    monkeypatch.setattr(native, "kernels", kernels)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=77))
    second = torch.device("cuda", 1)
    native.launch("ring_attention", second, 1, 2)
    assert seen == [("enter", second), (1, 2, 77), ("exit", second)]


@pytest.mark.skipif(not native.kernels, reason="the native module is built without CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CPU tensors must not reach a GPU")
@pytest.mark.parametrize("name", OPS)
def test_the_native_module_takes_what_the_ops_give(name, monkeypatch):
    """Its bindings and checks run; then it says what the machine lacks."""
    monkeypatch.setattr(CHOICE, "_mode", "pyrf")
    with (
        cpu_tensors_take_the_cuda_path(monkeypatch, native.kernels),
        pytest.raises(RuntimeError, match="cuda"),
    ):
        OPS[name][0](*OPS[name][1](torch.bfloat16, 64))


def empty_on(device, arguments):
    """Empty tensors of the same kind elsewhere; strides are kept."""
    return [
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)
        if isinstance(x, torch.Tensor)
        else x
        for x in arguments
    ]


@pytest.mark.parametrize("head_dim", [DIM, 128])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("name", OPS)
def test_neither_tracing_nor_plain_torch_waits_for_a_gpu(name, dtype, head_dim, monkeypatch):
    """The op on fake CUDA tensors, and plain torch on tensors without values: reading one would raise."""
    op, make = OPS[name]
    real = make(dtype, head_dim)
    monkeypatch.setattr(native, "kernels", None)
    with FakeTensorMode():
        traced = op(*empty_on("cuda", real))
    plain = RUN_CUDA[name](*empty_on("meta", real))
    expected = op(*real)
    if expected is not None:
        assert traced.device.type == "cuda"
        for out in (traced, plain):
            assert (out.shape, out.stride(), out.dtype) == (expected.shape, expected.stride(), expected.dtype)


@pytest.mark.parametrize("name", OPS)
def test_refuses_a_cpu_tensor_among_cuda_tensors(name, monkeypatch):
    """Each argument in turn; what the dispatcher calls refuses it before it looks for kernels."""
    op, make = OPS[name]
    real = make(torch.bfloat16, 64)
    monkeypatch.setattr(native, "refusal", lambda *_: pytest.fail("looked for kernels"))
    for index, x in enumerate(real):
        if isinstance(x, torch.Tensor):
            with FakeTensorMode(allow_non_fake_inputs=True):
                arguments = empty_on("cuda", real)
                arguments[index] = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
                with pytest.raises(
                    ValueError, match=r"must be .*(on cuda:0, got .*on cpu|on cpu, got .*on cuda:0)"
                ):
                    RUN_CUDA[name](*arguments)
                with pytest.raises((ValueError, RuntimeError), match="cpu"):
                    op(*arguments)
