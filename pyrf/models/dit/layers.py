"""The layers of the Wan diffusion transformer: attentions, feed-forward, block and head."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.config import PATCH, ModelConfig
from pyrf.models.attention import softmax_attention
from pyrf.models.dit.attention import CachingLayer, LayerAttention
from pyrf.ops import add_norm, add_norm_e4m3, bias_norm, bias_norm_e4m3, quantise_rows, ring_attention
from pyrf.ops.e4m3 import QuantisedRows
from pyrf.ops.gelu import gelu_tanh

Modulation = tuple[Tensor, ...]
"""Shifts, scales (plus one) and gates of a layer, each [D], or [B, F or 1, 1, D]."""


class TanhGELU(nn.Module):
    """`gelu_tanh` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu_tanh(x)


def _is_inference() -> bool:
    """Whether ops without a gradient will do."""
    return not torch.is_grad_enabled() and not torch.compiler.is_exporting()


class FeedForward(nn.Sequential):
    """Linear, GELU, linear. On a GPU, in bfloat16, the first product applies GELU too: a pass less."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__(nn.Linear(dim, ffn_dim), TanhGELU(), nn.Linear(ffn_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda" or x.dtype != torch.bfloat16 or not _is_inference():
            return super().forward(x)
        first, _, last = self
        assert isinstance(first, nn.Linear)
        hidden = torch._addmm_activation(first.bias, x.flatten(0, 1), first.weight.T, use_gelu=True)
        return last(hidden.unflatten(0, x.shape[:2]))


def _split(modulation: Tensor) -> tuple[Tensor, ...]:
    """[B, F or 1, k, D] to k tensors that broadcast over a frame's tokens; vectors where all share one."""
    if modulation.shape[:2] == (1, 1):
        return modulation.view(modulation.shape[2:]).unbind(0)
    return modulation.unsqueeze(3).unbind(2)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LN(x) scale + shift."""
    shape = x.shape[-1:]
    if shift.ndim == 1:
        return F.layer_norm(x, shape, scale, shift, eps)
    normed = F.layer_norm(x, shape, eps=eps).unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift, normed, scale).flatten(1, 2)


def _gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """x + gate y."""
    if gate.ndim == 1:
        return torch.addcmul(x, gate, y)
    frames = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, frames), gate, y.unflatten(1, frames)).flatten(1, 2)


def _is_one_pass(x: Tensor, *parameters: Tensor) -> bool:
    """Whether `add_norm` does sums and the norms after them: where no gradient is asked for, all tokens share
    a gate, and no parameter is kept in another dtype, as a training may.
    """
    return _is_inference() and all(p.ndim == 1 and p.dtype == x.dtype for p in parameters)


class _Projections(nn.Module):
    """Of an attention, with the norms of queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, config.eps)
        self.norm_k = nn.RMSNorm(config.dim, config.eps)
        self.heads, self.eps = config.num_heads, config.eps


class SelfAttention(_Projections):
    """Projections and norms of a self-attention; mixing is left to the attention object."""

    def forward(self, x: Tensor | QuantisedRows, attention: LayerAttention) -> Tensor:
        mixed = attention.attend(
            self.q(x), self.k(x), self.v(x), self.norm_q.weight, self.norm_k.weight, self.eps
        )
        return self.o(mixed)

    def append(self, x: Tensor | QuantisedRows, attention: CachingLayer) -> None:
        """Only write x's keys and values into the cache."""
        attention.append(self.k(x), self.v(x), self.norm_k.weight, self.eps)


class CrossAttention(_Projections):
    """Attention to the prompt; its keys and values are made once by `encode`."""

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def encode(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Text [B, text_len, D] to keys and values [B, heads, text_len, head_dim]."""
        return self._split(self.norm_k(self.k(text))), self._split(self.v(text))

    def forward(self, x: Tensor | QuantisedRows, keys: Tensor, values: Tensor) -> Tensor:
        """x [B, N, D], or [N, D] of one clip, to the same shape."""
        q = self.q(x)
        if q.device.type == "cpu" and q.dtype == torch.float32 and _is_inference():
            return self.o(self._mix_on_cpu(q, keys, values))
        q = self._split(self.norm_q(q))
        mixed = softmax_attention(q.reshape(-1, *q.shape[-3:]), keys, values)
        return self.o(mixed.transpose(1, 2).reshape(x.shape))

    def _mix_on_cpu(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Norm and attention proper by ops: torch's RMS norm takes many passes there."""
        q = self._split(bias_norm(q, self.norm_q.weight, eps=self.eps, rms=True))
        return ring_attention(q, keys, values, keys.shape[2])


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, modulated by the timestep.

    Attributes:
        quantises: whether norms give the linears after them rows in e4m3 (`pyrf.models.dit.fp8_linear`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.ffn: nn.Sequential = FeedForward(config.dim, config.ffn_dim)
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim))
        nn.init.normal_(self.modulation, std=config.dim**-0.5)
        self.eps = config.eps
        self.quantises = False

    def modulate(self, projected: Tensor) -> Modulation:
        """Shift, scale and gate of self-attention, then of the feed-forward."""
        shift1, scale1, gate1, shift2, scale2, gate2 = _split(self.modulation + projected)
        return shift1, 1 + scale1, gate1, shift2, 1 + scale2, gate2

    def forward(
        self,
        x: Tensor,
        projected: Tensor | Modulation,
        keys: Tensor,
        values: Tensor,
        attention: LayerAttention,
    ) -> Tensor:
        """One block.

        Args:
            x: [B, N, D].
            projected: [B, F or 1, 6, D], see `TimeEmbedding`; or what `modulate` makes of it.
            keys, values: this layer's part of the `PromptCache`.
            attention: what self-attention sees.
        """
        m = self.modulate(projected) if isinstance(projected, Tensor) else projected
        mixed = self.self_attn(self._entering(x, m[0], m[1]), attention)
        norm = self.norm3
        if _is_one_pass(x, m[2], norm.weight):
            sum_and_norm = add_norm_e4m3 if self.quantises else add_norm
            x, normed = sum_and_norm(mixed, x, norm.weight, gate=m[2], shift=norm.bias, eps=norm.eps)
            crossed = self.cross_attn(normed, keys, values)
            x, normed = sum_and_norm(crossed, x, m[4], shift=m[3], eps=self.eps)
        else:
            x = _gated(x, m[2], mixed)
            x = x + self.cross_attn(self._rows(norm(x)), keys, values)
            normed = self._entering(x, m[3], m[4])
        return _gated(x, m[5], self.ffn(normed))

    def _entering(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor | QuantisedRows:
        """LN(x) scale + shift, as the block's linears take it."""
        if self.quantises and _is_one_pass(x, shift, scale):
            return bias_norm_e4m3(x, scale, shift=shift, eps=self.eps)
        return self._rows(_modulated(x, shift, scale, self.eps))

    def _rows(self, x: Tensor) -> Tensor | QuantisedRows:
        """What several linears share is rounded once."""
        return quantise_rows(x) if self.quantises else x

    def encode_prompt(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """This layer's part of the `PromptCache`: text [B, text_len, D] to keys and values."""
        return self.cross_attn.encode(text)

    def append(self, x: Tensor, projected: Tensor | Modulation, attention: CachingLayer) -> None:
        """Only write x's keys and values into the cache: all that the last block of a clean call does."""
        shift, scale = (self.modulate(projected) if isinstance(projected, Tensor) else projected)[:2]
        self.self_attn.append(self._entering(x, shift, scale), attention)


class Head(nn.Module):
    """Last norm, modulation and projection to patches."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head = nn.Linear(config.dim, config.out_channels * math.prod(PATCH))
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim))
        nn.init.normal_(self.modulation, std=config.dim**-0.5)
        self.eps = config.eps

    def modulate(self, e: Tensor) -> Modulation:
        """Shift and scale."""
        shift, scale = _split(self.modulation + e.unsqueeze(2))
        return shift, 1 + scale

    def forward(self, x: Tensor, e: Tensor | Modulation) -> Tensor:
        """x [B, N, D] and e [B, F or 1, D], or what `modulate` makes of it, to [B, N, 4 * out_channels]."""
        shift, scale = self.modulate(e) if isinstance(e, Tensor) else e
        return self.head(_modulated(x, shift, scale, self.eps))
