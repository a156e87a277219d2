"""The native module's loops for a CPU: against float64, on any number of threads, alone and in a batch."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.rope import rope_table
from pyrf.ops import add_norm, native, norm_rope_append, ring_attention, set_attention
from pyrf.ops.attention_choice import CHOICE
from pyrf.ops.norm_rope_append import norm_rotate
from tests.support.op_arguments import draw
from tests.support.portable_loops import PortableLoops, can_be_built
from tests.support.tiny import CONFIG, SIZE, network, prompts

pytestmark = pytest.mark.skipif(native.cpu is None, reason="the native module is not built")


@pytest.fixture(scope="module", autouse=True)
def loops():
    """The loops as they are built, or, on a processor without AVX-512, with attention built for it."""
    found = native.cpu
    if native.cpu_attention_refusal(128, torch.float32) is not None:
        if not can_be_built():
            pytest.skip("this CPU has no AVX-512, and its attention cannot be built for it")
        found = PortableLoops(native.cpu)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "cpu", found)
        yield found


@pytest.fixture
def ran(monkeypatch, loops):
    """Names of the loops that ran."""
    names = []

    class Recorded:
        def __getattr__(self, name):
            if name != "serves_ring_attention":
                names.append(name)
            return getattr(loops, name)

    monkeypatch.setattr(native, "cpu", Recorded())
    monkeypatch.setattr(CHOICE, "_mode", "auto")
    return names


@pytest.fixture
def threads():
    """Set the number of threads; it is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def cached(batch, heads, queries, length, head_dim, seed=0):
    """q as norm_rope_append leaves it, and keys and values in a cache with NaN behind ``length``."""
    q = draw(batch, queries, heads, head_dim, seed=seed).transpose(1, 2)
    cache = draw(2, batch, heads, length + 3, head_dim, seed=seed + 1)
    cache[..., length:, :] = float("nan")
    return q, cache[0], cache[1], length


def exact(q, keys, values, length):
    seen = (x[:, :, :length].double() for x in (keys, values))
    return F.scaled_dot_product_attention(q.double(), *seen).transpose(1, 2).flatten(2)


@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 5),
    queries=st.integers(1, 40),
    length=st.one_of(st.integers(1, 70), st.integers(250, 530)),
    head_dim=st.sampled_from([32, 64, 96, 128]),
)
def test_attention_of_any_size(batch, heads, queries, length, head_dim):
    arguments = cached(batch, heads, queries, length, head_dim)
    got = ring_attention(*arguments)
    assert got.is_contiguous()
    torch.testing.assert_close(got.double(), exact(*arguments), atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [1e-30, 30.0, 1e4])
def test_attention_of_extreme_scores(size):
    """All alike; one far above the others, in a later block of keys; and far below zero."""
    q, keys, values, length = cached(1, 2, 5, 600, 32)
    arguments = (size * q, keys, values, length)
    torch.testing.assert_close(ring_attention(*arguments).double(), exact(*arguments), atol=2e-5, rtol=1e-5)
    negative = (torch.full_like(q, size), -keys.abs(), values, length)
    torch.testing.assert_close(ring_attention(*negative).double(), exact(*negative), atol=2e-5, rtol=1e-5)


def test_a_query_that_is_not_a_number_spoils_its_own_row_only():
    q, keys, values, length = cached(1, 1, 9, 300, 64)
    q[0, 0, 4, 7] = float("nan")
    got = ring_attention(q, keys, values, length)
    assert got[0].isnan().any(-1).nonzero().flatten().tolist() == [4]
    assert got[0, 4].isnan().all()


def test_attention_does_not_depend_on_threads_or_neighbours(threads):
    arguments = cached(3, 3, 130, 400, 64)
    results = []
    for count in (1, 2, 3, 8):
        threads(count)
        results.append(ring_attention(*arguments))
    assert all(torch.equal(result, results[0]) for result in results)
    q, keys, values, length = arguments
    alone = ring_attention(q[1:2], keys[1:2], values[1:2], length)
    assert torch.equal(alone, results[0][1:2])
    part = ring_attention(q[1:2, :, 50:61], keys[1:2], values[1:2], length)
    assert torch.equal(part, alone[:, 50:61])


def test_attention_reads_strided_and_expanded_tensors():
    q, keys, values, length = cached(1, 2, 6, 40, 32)
    arguments = (q.expand(3, -1, -1, -1), *(x.expand(3, -1, -1, -1) for x in (keys, values)), length)
    assert torch.equal(ring_attention(*arguments), ring_attention(q, keys, values, length).expand(3, -1, -1))
    wide = torch.zeros(1, 2, 43, 2, 32)
    wide[..., 1, :] = keys
    assert torch.equal(
        ring_attention(q, wide[..., 1, :], values, length), ring_attention(q, keys, values, length)
    )


def test_which_attention_runs(ran):
    arguments = cached(1, 2, 6, 40, 32)
    loops = ring_attention(*arguments)
    assert ran == ["ring_attention"]
    set_attention("sdpa")
    torch_s = ring_attention(*arguments)
    set_attention("auto")
    ring_attention(*cached(1, 2, 6, 40, 24))  # a head_dim that does not fill registers
    q, keys, values, length = arguments
    ring_attention(q.bfloat16(), keys.bfloat16(), values.bfloat16(), length)
    assert ran == ["ring_attention"]
    torch.testing.assert_close(loops, torch_s, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("batch", "tokens", "heads", "head_dim"), [(1, 6, 3, 10), (2, 400, 4, 64)])
def test_norm_rope_append(ran, threads, batch, tokens, heads, head_dim):
    """Also where several threads share the tokens, with q, k and v as parts of one product."""
    q, k, v = draw(batch, tokens, 3 * heads * head_dim).chunk(3, -1)
    norm_q, norm_k = (1 + draw(heads * head_dim, seed=seed) for seed in (1, 2))
    model = ModelConfig(dim=heads * head_dim, num_heads=heads, rope_theta=100.0)
    rope = rope_table(model, [5], LatentSize(2, 2 * tokens))
    caches = []
    for count in (1, 3):
        threads(count)
        keys, values = torch.zeros(2, batch, heads, 2 * tokens, head_dim)
        got = norm_rope_append(q, k, v, norm_q, norm_k, 1e-6, rope, torch.tensor(1), keys, values)
        caches.append((got, keys, values))
    assert ran == ["norm_rope_append"] * 2
    for one, several in zip(*caches):
        assert torch.equal(one, several)
    for result, x, weight in ((got, q, norm_q), (keys[:, :, tokens:], k, norm_k)):
        expected = norm_rotate(x.double(), weight.double(), 1e-6, rope.double())
        torch.testing.assert_close(result.double(), expected, atol=2e-6, rtol=2e-6)
    assert torch.equal(values[:, :, tokens:], v.unflatten(-1, (heads, head_dim)).transpose(1, 2))
    assert not keys[:, :, :tokens].any()
    assert not values[:, :, :tokens].any()


def test_add_norm_on_several_threads(ran, threads):
    """The formula of each form is checked with the op's; sizes there are those of one thread."""
    y, residual = draw(700, 96, seed=1), draw(700, 96, seed=2)
    gate, weight, shift = (draw(96, seed=seed) for seed in (3, 4, 5))
    threads(3)
    total, normed = add_norm(y, residual, weight, gate=gate, shift=shift, eps=1e-6)
    assert ran == ["add_norm"]
    expected = residual.double() + gate.double() * y.double()
    torch.testing.assert_close(total.double(), expected, atol=1e-6, rtol=1e-6)
    expected = F.layer_norm(total.double(), (96,), weight.double(), shift.double(), 1e-6)
    torch.testing.assert_close(normed.double(), expected, atol=4e-6, rtol=2e-6)
    add_norm(y, residual, weight, eps=1e-6, silu=True)
    assert ran == ["add_norm"]


def test_a_stream_is_the_same_without_the_native_module(ran, monkeypatch):
    config = replace(CONFIG, dim=64, ffn_dim=64)
    stream = StreamConfig(sink_alpha=0.9, denoising_steps=(1000, 500))

    def run():
        model = network(config, dtype=torch.float32)[0]
        rollout = TorchRollout(model, stream, 1, SIZE, prompts(dtype=torch.float32))
        loop = rollout.loop([0])
        return torch.cat([loop.next_chunk() for _ in range(4)], 1)

    loops = run()
    assert {"norm_rope_append", "add_norm"} <= set(ran)
    monkeypatch.setattr(native, "cpu", None)
    torch.testing.assert_close(loops, run(), atol=2e-5, rtol=0)


def test_why_attention_is_not_ours(monkeypatch):
    """The processor is named where it is the reason, and the heads only where they are."""

    def why(head_dim: int, dtype: torch.dtype = torch.float32) -> str:
        return native.cpu_attention_refusal(head_dim, dtype) or "it is"

    assert why(64) == "it is"
    assert "a head_dim that is a multiple of 32, got 24" in why(24)
    assert "computes in float32, got torch.bfloat16" in why(64, torch.bfloat16)
    monkeypatch.setattr(native, "cpu", SimpleNamespace(serves_ring_attention=lambda head_dim: False))
    for head_dim in (24, 64):
        assert why(head_dim).endswith("needs an x86 CPU with AVX-512, and a build by GCC 12 or newer")
