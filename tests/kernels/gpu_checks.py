"""What the kernels must do on a GPU: each against float32 torch, and a long stream replayed from a graph.

Every check takes its device, so that a machine without a GPU can rehearse it at small sizes. Inputs are
drawn from torch's default generators: seed them, and name the seed when a check fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.rope import ChunkRope
from pyrf.models.dit.attention import CachedAttention
from pyrf.ops import (
    add_norm,
    add_norm_e4m3,
    bias_norm,
    ema_sink_update,
    gated_sum,
    norm_rope_append,
    quantise_rows,
    ring_attention,
)
from pyrf.ops.attention_choice import set_attention
from pyrf.ops.e4m3 import E4M3, QuantisedRows, plain_quantise_rows
from pyrf.ops.ema_sink_update import MASTER_DTYPES, join_bits, split_bits
from pyrf.ops.library import rounded
from pyrf.ops.norm_rope_append import norm_rotate
from pyrf.ops.ring_attention import E4M3_WITHIN

ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, E4M3: 2.0**-4}
"""Half a unit in the last place, relative."""
LEAST = {E4M3: 1.01 * 2.0**-10}
"""The same of the smallest numbers, absolute."""


@dataclass(frozen=True)
class Case:
    """A cache of three slots of `tokens`, [batch, heads, 3 * tokens, head_dim]."""

    dtype: torch.dtype
    head_dim: int
    heads: int
    tokens: int
    batch: int = 1
    device: str = "cuda"

    def draw(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return rounded(torch.randn(shape, device=self.device, dtype=torch.float32), dtype or self.dtype)

    def cache(self, slots: int = 3) -> Tensor:
        return self.draw(self.batch, self.heads, slots * self.tokens, self.head_dim)

    def poisoned_cache(self) -> Tensor:
        return self.cache().float().fill_(math.nan).to(self.dtype)

    def table(self, rows: int, pairs: int) -> Tensor:
        """Cosines and sines, [rows, pairs, 2]."""
        angles = 3 * self.draw(rows, pairs, dtype=torch.float32)
        return torch.stack((angles.cos(), angles.sin()), -1)

    def poison_the_allocator(self) -> None:
        """Leave NaN in the memory that the next tensor of [B, tokens, heads * head_dim] will be given."""
        self.draw(self.batch, self.tokens, self.heads * self.head_dim).fill_(math.nan)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """L2; NaN when the output is not whole."""
    return ((got.float() - expected).norm() / expected.norm()).item()


def plain_attention(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[B, heads, N, head_dim], a head at a time: all scores of all heads take gigabytes."""
    out = torch.empty_like(q)
    for index in product(range(q.shape[0]), range(q.shape[1])):
        scores = q[index] @ keys[index].T / math.sqrt(q.shape[3])
        out[index] = scores.softmax(-1) @ values[index]
    return out


def check_ring_attention(case: Case, length: int, stored: torch.dtype | None = None) -> None:
    """`length` valid keys; the others are NaN. With a cache `stored` in e4m3 the products take e4m3."""
    q, keys, values = case.cache(slots=1), case.cache(), case.cache()
    keys[:, :, length:] = values[:, :, length:] = math.nan
    keys, values = (rounded(x, stored or case.dtype) for x in (keys, values))
    wide = (rounded(q, keys.dtype).float(), keys[:, :, :length].float(), values[:, :, :length].float())
    expected = plain_attention(*wide).transpose(1, 2).flatten(2)
    case.poison_the_allocator()
    error = relative_error(ring_attention(q, keys, values, length), expected)
    assert error < (E4M3_WITHIN if stored else 0.75 * ROUNDING[case.dtype]), error


def check_norm_rope_append(case: Case, stored: torch.dtype | None = None) -> None:
    """q, k and v are views of a fused product; the cache is NaN, and stays so but for the slot.

    Args:
        case: in whose dtype the cache is.
        stored: the cache's dtype in place of it, e4m3.
    """
    dim, tokens = case.heads * case.head_dim, case.tokens
    q, k, v = case.draw(case.batch, tokens, 3 * dim).chunk(3, -1)
    norm_q, norm_k = (1 + 0.1 * case.draw(dim) for _ in range(2))
    rope = case.table(tokens, case.head_dim // 2)
    keys, values = (case.poisoned_cache().to(stored or case.dtype) for _ in range(2))
    slot = torch.tensor(1, device=case.device)
    case.poison_the_allocator()
    got = norm_rope_append(q, k, v, norm_q, norm_k, 1e-6, rope, slot, keys, values)
    inside = slice(tokens, 2 * tokens)
    for result, x, weight in ((got, q, norm_q), (keys[:, :, inside], k, norm_k)):
        expected = norm_rotate(x.float(), weight.float(), 1e-6, rope)
        rtol, atol = 1.01 * ROUNDING[result.dtype], LEAST.get(result.dtype, 1e-5)
        torch.testing.assert_close(result.float(), expected, rtol=rtol, atol=atol)
    expected = rounded(v.unflatten(-1, (-1, case.head_dim)).transpose(1, 2), values.dtype)
    assert torch.equal(values[:, :, inside].float(), expected.float())
    for cache in (keys, values):
        assert cache[:, :, :tokens].isnan().all()
        assert cache[:, :, 2 * tokens :].isnan().all()


def check_add_norm(dtype: torch.dtype, rows: int, dim: int, device: str) -> None:
    """A block's sum and LayerNorm, and a VAE's bias, RMS norm and SiLU, and its bias and residual."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    y, residual, weight, (gate, bias, shift) = draw(rows, dim), draw(rows, dim), 1 + draw(dim), draw(3, dim)
    wide = [x.float() for x in (y, residual, weight, gate, bias, shift)]
    wide_y, wide_residual, wide_weight, wide_gate, wide_bias, wide_shift = wide
    rtol, atol = 1.01 * ROUNDING[dtype], 2e-5

    draw(rows, dim).fill_(math.nan)  # what the allocator gives next
    total, normed = add_norm(y, residual, weight, gate=gate, shift=shift, eps=1e-6)
    torch.testing.assert_close(total.float(), wide_residual + wide_gate * wide_y, rtol=rtol, atol=atol)
    expected = F.layer_norm(total.float(), (dim,), wide_weight, wide_shift, 1e-6)
    torch.testing.assert_close(normed.float(), expected, rtol=rtol, atol=atol)

    activated = bias_norm(y, weight, bias=bias, eps=1e-12, rms=True, silu=True)
    biased = (wide_y + wide_bias).to(dtype).float()
    expected = F.silu(F.rms_norm(biased, (dim,), wide_weight, 1e-12))
    torch.testing.assert_close(activated.float(), expected, rtol=rtol, atol=atol)

    summed = gated_sum(y, residual, bias=bias)
    torch.testing.assert_close(summed.float(), wide_residual + (wide_y + wide_bias), rtol=rtol, atol=atol)


def check_same_rows(got: QuantisedRows, expected: QuantisedRows) -> None:
    """To the bit, but for what stands for NaN."""
    torch.testing.assert_close(got.scales, expected.scales, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(got.rows.float(), expected.rows.float(), rtol=0, atol=0, equal_nan=True)


def check_rows_in_e4m3(dtype: torch.dtype, rows: int, dim: int, hidden: int, device: str) -> None:
    """Every bit of what is scaled: of rows, of their norms, and of GELU within what 16 bits and e4m3 keep."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    x, y, residual, (gate, weight, shift) = draw(rows, hidden), draw(rows, dim), draw(rows, dim), draw(3, dim)
    x[0], x[1, 5], x[2, -1] = 0, math.nan, math.inf
    check_same_rows(quantise_rows(x), plain_quantise_rows(x))
    got, exact = quantise_rows(x[3:], gelu=True), F.gelu(x[3:].float(), approximate="tanh")
    least = 2.2e-6 * exact.abs().amax(-1, keepdim=True) + 4e-8
    assert ((got.rows.float() * got.scales - exact).abs() <= 0.07 * exact.abs() + least).all()

    settings = {"gate": gate, "shift": shift, "eps": 1e-6}
    total, normed = add_norm(y, residual, weight, **settings)
    same_total, narrow = add_norm_e4m3(y, residual, weight, **settings)
    assert torch.equal(total, same_total)
    check_same_rows(narrow, plain_quantise_rows(normed))


def check_ema_sink_update(case: Case, alpha: float = 0.999, updates: int = 20) -> None:
    """Some updates with fresh chunks, against a float32 average; the slot between is NaN, and stays so.

    All updates but the first are replayed from a graph, which reads the slot's index anew each time.
    """
    tokens = case.tokens
    sinks = [case.draw(*case.cache(slots=1).shape, dtype=torch.float32) for _ in range(2)]
    caches, masters = [case.poisoned_cache(), case.poisoned_cache()], []
    for cache, sink in zip(caches, sinks):
        high, low = split_bits(sink)
        is_split = MASTER_DTYPES[case.dtype] == torch.int16
        cache[:, :, :tokens] = high if is_split else sink
        masters.append(low if is_split else sink.clone())
    turn = case.table(1, case.head_dim // 2 - 2 * (case.head_dim // 6))[0]
    slot = torch.tensor(2, device=case.device)

    def run() -> None:
        keys, values, key_master, value_master = *caches, *masters
        ema_sink_update(keys, values, key_master, value_master, slot, turn, tokens, alpha)

    step: Callable[[], object] = run
    for index in range(updates):
        for cache in caches:
            cache[:, :, 2 * tokens :] = case.cache(slots=1)
        if index == 1:
            step = capture(run, case.device)
        step()
        pairs = torch.view_as_complex(sinks[0].unflatten(-1, (-1, 2)))
        pairs[..., : len(turn)] *= torch.view_as_complex(turn)
        for sink, cache in zip(sinks, caches):
            sink.lerp_(cache[:, :, 2 * tokens :].float(), 1 - alpha)
    for cache, master, sink in zip(caches, masters, sinks):
        slot_0 = cache[:, :, :tokens]
        exact = join_bits(slot_0, master) if master.dtype == torch.int16 else master
        torch.testing.assert_close(exact, sink, rtol=1e-5, atol=1e-5)
        expected = split_bits(exact)[0] if master.dtype == torch.int16 else rounded(exact, case.dtype)
        assert torch.equal(slot_0.float(), expected.float())
        assert cache[:, :, tokens : 2 * tokens].isnan().all()


def capture(run: Callable[[], object], device: str) -> Callable[[], object]:
    """What replays a run that was recorded, not run, as a CUDA graph; on a CPU the run itself.

    Run it once before: a kernel that is not loaded yet cannot be captured.
    """
    if device == "cpu":
        return run
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class LayerStream:
    """One attention layer streamed through its cache, from buffers that are overwritten chunk by chunk.

    Args:
        rows, columns: tokens of a latent frame.
    """

    def __init__(
        self,
        model: ModelConfig,
        stream: StreamConfig,
        rows: int,
        columns: int,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self.model, size = model, LatentSize(2 * rows, 2 * columns)
        self.cache = SinkRingCache(model, stream, batch=1, size=size, dtype=dtype, device=device)
        self.rope = ChunkRope(model, size, dtype=dtype, device=device)
        self.layer = CachedAttention(self.cache, self.rope).for_layer(0)
        self.qkv = torch.empty(3, 1, self.cache.tokens, model.dim, dtype=dtype, device=device)
        self.norms = torch.ones(2, model.dim, dtype=dtype, device=device)

    def begin(self, qkv: Tensor) -> None:
        """Make room for a chunk and take its projections, [3, 1, tokens, D]."""
        self.cache.begin_chunk()
        self.qkv.copy_(qkv)
        self.rope.at(self.cache.frame_positions)

    def attend(self) -> Tensor:
        """[1, tokens, D] of the chunk under way."""
        (q, k, v), (norm_q, norm_k) = self.qkv, self.norms
        return self.layer.attend(q, k, v, norm_q, norm_k, self.model.eps)


def check_stream(
    model: ModelConfig, rows: int, columns: int, dtype: torch.dtype, device: str, chunks: int = 50
) -> None:
    """Stream chunks, those with a full window by one graph, beside the same stream in float32."""
    stream = StreamConfig(sink_alpha=0.9)
    ours = LayerStream(model, stream, rows, columns, dtype, device)
    reference = LayerStream(model, stream, rows, columns, torch.float32, device)
    output = torch.empty(1, ours.cache.tokens, model.dim, dtype=dtype, device=device)

    def run() -> None:
        output.copy_(ours.attend())

    step: Callable[[], object] = run
    for index in range(chunks):
        qkv = torch.randn(ours.qkv.shape, device=device).to(dtype)
        ours.begin(qkv)
        reference.begin(qkv.float())
        if index == stream.slots - 1:
            step = capture(run, device)
        output.fill_(math.nan)
        step()
        set_attention("sdpa")  # pyrf's has no float32
        with sdpa_kernel(SDPBackend.MATH):
            error = relative_error(output, reference.attend())
        set_attention("pyrf")
        assert error < 2 * ROUNDING[dtype], f"chunk {index} is {error:.3g} off"
        ours.cache.commit()
        reference.cache.commit()
    sinks = [one.cache.keys[0][:, :, : one.cache.tokens].float() for one in (ours, reference)]
    error = relative_error(*sinks)
    assert error < 2 * ROUNDING[dtype], f"the sink is {error:.3g} off"
