"""The Wan diffusion transformer, one network for the causal student and the bidirectional teacher.

Parameter names are those of the official checkpoints, so state dicts load as they are. Tokens are
ordered frame, row, column; a token covers 1 x 2 x 2 latents (`pyrf.config.PATCH`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.config import PATCH, ModelConfig
from pyrf.models.attention import (
    Attention,
    BidirectionalAttention,
    CachingAttention,
    CachingLayer,
    LayerAttention,
    rope_table,
)
from pyrf.ops import add_norm, bias_norm, ring_attention


class PromptCache(NamedTuple):
    """Cross-attention keys and values of each layer, [B, heads, text_len, head_dim]; made once a prompt."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


Modulation = tuple[Tensor, ...]
"""Shifts, scales (plus one) and gates of a layer, each [D], or [B, F or 1, 1, D]."""


class TimeEmbedding(NamedTuple):
    """Embedded timesteps: ``e`` [B, F or 1, D] for the head, ``projected`` [B, F or 1, 6, D] for blocks.

    ``blocks`` and ``head`` hold their modulations where these were formed ahead, for use in many calls.
    """

    e: Tensor
    projected: Tensor
    blocks: tuple[Modulation, ...] | None = None
    head: Modulation | None = None


def sinusoid(timesteps: Tensor, dim: int) -> Tensor:
    """Cosines then sines of real-valued timesteps, [..., dim], in float64."""
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float64, device=timesteps.device) / half
    angles = timesteps.double().unsqueeze(-1) * 10000.0**-exponents
    return torch.cat((angles.cos(), angles.sin()), -1)


def patchify(latents: Tensor) -> Tensor:
    """[B, F, C, H, W] to [B, F * H/2 * W/2, C * 4], channel slowest as in the convolution's weight."""
    _, p, q = PATCH
    b, f, c, h, w = latents.shape
    x = latents.view(b, f, c, h // p, p, w // q, q).permute(0, 1, 3, 5, 2, 4, 6)
    return x.reshape(b, -1, c * p * q)


def unpatchify(tokens: Tensor, frames: int, height: int, width: int) -> Tensor:
    """[B, N, 4 * C], channel fastest as the head emits them, to [B, F, C, H, W]."""
    _, p, q = PATCH
    x = tokens.view(tokens.shape[0], frames, height // p, width // q, p, q, -1)
    return x.permute(0, 1, 6, 2, 4, 3, 5).reshape(tokens.shape[0], frames, -1, height, width)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form. On a CPU half the cost of torch's: (1 + tanh u) / 2 is sigmoid(2u)."""
    slow = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if not slow or torch.compiler.is_exporting():
        return F.gelu(x, approximate="tanh")
    scale = 2 * math.sqrt(2 / math.pi)
    gate = torch.addcmul(x.new_full((), scale), x, x, value=0.044715 * scale)
    if torch.is_grad_enabled():
        return x * torch.sigmoid(gate * x)
    return gate.mul_(x).sigmoid_().mul_(x)


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


class SelfAttention(nn.Module):
    """Projections and norms of a self-attention; mixing is left to the attention object."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, config.eps)
        self.norm_k = nn.RMSNorm(config.dim, config.eps)
        self.eps = config.eps

    def forward(self, x: Tensor, rope: Tensor, attention: LayerAttention) -> Tensor:
        mixed = attention.attend(
            self.q(x), self.k(x), self.v(x), self.norm_q.weight, self.norm_k.weight, self.eps, rope
        )
        return self.o(mixed)

    def append(self, x: Tensor, rope: Tensor, attention: CachingLayer) -> None:
        """Only write x's keys and values into the cache."""
        attention.append(self.k(x), self.v(x), self.norm_k.weight, self.eps, rope)


class CrossAttention(nn.Module):
    """Attention to the prompt; its keys and values are made once by `encode`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, config.eps)
        self.norm_k = nn.RMSNorm(config.dim, config.eps)
        self.heads, self.eps = config.num_heads, config.eps

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def encode(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Text [B, text_len, D] to keys and values [B, heads, text_len, head_dim]."""
        return self._split(self.norm_k(self.k(text))), self._split(self.v(text))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """x [B, N, D], or [N, D] of one clip, to the same shape."""
        q = self.q(x)
        if q.device.type == "cpu" and q.dtype == torch.float32 and _is_inference():
            return self.o(self._mix_on_cpu(q, keys, values))
        q = self._split(self.norm_q(q))
        mixed = F.scaled_dot_product_attention(q.reshape(-1, *q.shape[-3:]), keys, values)
        return self.o(mixed.transpose(1, 2).reshape(x.shape))

    def _mix_on_cpu(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Norm and attention proper by ops: torch's RMS norm takes many passes there."""
        q = self._split(bias_norm(q, self.norm_q.weight, eps=self.eps, rms=True))
        return ring_attention(q, keys, values, keys.shape[2])


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward, modulated by the timestep."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim))
        nn.init.normal_(self.modulation, std=config.dim**-0.5)
        self.eps = config.eps

    def modulate(self, projected: Tensor) -> Modulation:
        """Shift, scale and gate of self-attention, then of the feed-forward."""
        shift1, scale1, gate1, shift2, scale2, gate2 = _split(self.modulation + projected)
        return shift1, 1 + scale1, gate1, shift2, 1 + scale2, gate2

    def forward(
        self,
        x: Tensor,
        projected: Tensor | Modulation,
        rope: Tensor,
        keys: Tensor,
        values: Tensor,
        attention: LayerAttention,
    ) -> Tensor:
        """One block.

        Args:
            x: [B, N, D].
            projected: [B, F or 1, 6, D], see `TimeEmbedding`; or what `modulate` makes of it.
            rope: [N, head_dim / 2, 2].
            keys, values: this layer's part of the `PromptCache`.
            attention: what self-attention sees.
        """
        m = self.modulate(projected) if isinstance(projected, Tensor) else projected
        mixed = self.self_attn(_modulated(x, m[0], m[1], self.eps), rope, attention)
        norm = self.norm3
        if _is_one_pass(x, m[2], norm.weight):
            x, normed = add_norm(mixed, x, norm.weight, gate=m[2], shift=norm.bias, eps=norm.eps)
            crossed = self.cross_attn(normed, keys, values)
            x, normed = add_norm(crossed, x, m[4], shift=m[3], eps=self.eps)
        else:
            x = _gated(x, m[2], mixed)
            x = x + self.cross_attn(norm(x), keys, values)
            normed = _modulated(x, m[3], m[4], self.eps)
        return _gated(x, m[5], self.ffn(normed))

    def encode_prompt(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """This layer's part of the `PromptCache`: text [B, text_len, D] to keys and values."""
        return self.cross_attn.encode(text)

    def append(
        self, x: Tensor, projected: Tensor | Modulation, rope: Tensor, attention: CachingLayer
    ) -> None:
        """Only write x's keys and values into the cache: all that the last block of a clean call does."""
        shift, scale = (self.modulate(projected) if isinstance(projected, Tensor) else projected)[:2]
        self.self_attn.append(_modulated(x, shift, scale, self.eps), rope, attention)


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


class WanModel(nn.Module):
    """Wan DiT: latents, timesteps and a prompt to the flow ``noise - x0``.

    Args:
        config: its sizes. Weights start as Wan's do (the head at zero).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv3d(config.in_channels, config.dim, PATCH, PATCH)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, config.dim),
            TanhGELU(),
            nn.Linear(config.dim, config.dim),
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.blocks: Sequence[Block] = nn.ModuleList(Block(config) for _ in range(config.num_layers))  # type: ignore[assignment]
        self.head = Head(config)
        self._rope: tuple[tuple[object, ...], Tensor] | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Wan's initial weights: xavier, small text and time embeddings, a head of zeros."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for module in (*self.text_embedding, *self.time_embedding):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.head.head.weight)

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    def encode_prompt(self, prompt_embeds: Tensor) -> PromptCache:
        """Text rows to the cross-attention keys and values of every layer. Differentiable.

        Args:
            prompt_embeds: [B, text_len, text_dim]; padding rows are zero, and are attended.

        Raises:
            ValueError: when the shape is not that.
        """
        expected = (self.config.text_len, self.config.text_dim)
        if prompt_embeds.ndim != 3 or tuple(prompt_embeds.shape[1:]) != expected:
            raise ValueError(
                f"prompt_embeds must be [B, {expected[0]}, {expected[1]}], got {list(prompt_embeds.shape)}"
            )
        text = self.text_embedding(prompt_embeds.to(self.dtype))
        pairs = [block.encode_prompt(text) for block in self.blocks]
        return PromptCache(tuple(k for k, _ in pairs), tuple(v for _, v in pairs))

    def embed_timesteps(self, timesteps: Tensor) -> TimeEmbedding:
        """Timesteps [B] (one for all frames) or [B, F] to their embedding."""
        if timesteps.ndim not in (1, 2):
            raise ValueError(f"timesteps must be [B] or [B, F], got {list(timesteps.shape)}")
        if timesteps.ndim == 1:
            timesteps = timesteps.unsqueeze(1)
        return self.embed_sinusoid(sinusoid(timesteps, self.config.freq_dim))

    def embed_sinusoid(self, rows: Tensor) -> TimeEmbedding:
        """The `sinusoid` of timesteps, [B, F or 1, freq_dim], to their embedding."""
        e = self.time_embedding(rows.to(self.dtype))
        return TimeEmbedding(e, self.time_projection(e).unflatten(-1, (6, -1)))

    def modulate(self, time: TimeEmbedding) -> TimeEmbedding:
        """The same embedding with all modulations formed, for timesteps that come again and again."""
        blocks = tuple(block.modulate(time.projected) for block in self.blocks)
        return TimeEmbedding(time.e, time.projected, blocks, self.head.modulate(time.e))

    def rope(self, frame_positions: Tensor | Sequence[float], height: int, width: int) -> Tensor:
        """The `rope_table` of latents at given frame positions; the last one asked for is kept."""
        positions = tuple(
            frame_positions.tolist() if isinstance(frame_positions, Tensor) else frame_positions
        )
        dtype = torch.promote_types(self.dtype, torch.float32)
        key = (positions, height, width, dtype, self.device)
        kept = self._rope  # read once: streams in other threads share the model
        if kept is None or kept[0] != key:
            with torch.inference_mode(False):  # a table made in a stream may serve training next
                table = rope_table(
                    positions,
                    height // PATCH[1],
                    width // PATCH[2],
                    self.config.head_dim,
                    self.config.rope_theta,
                    dtype=dtype,
                    device=self.device,
                )
            self._rope = kept = (key, table)
        return kept[1]

    def _enter(
        self,
        latents: Tensor,
        timesteps: Tensor | TimeEmbedding,
        prompt: PromptCache,
        frame_positions: Tensor | Sequence[float] | None,
    ) -> tuple[Tensor, TimeEmbedding, Tensor]:
        """Check and embed what comes in: tokens [B, N, D], time embedding, rope table."""
        if latents.ndim != 5 or latents.shape[2] != self.config.in_channels:
            raise ValueError(
                f"latents must be [B, F, {self.config.in_channels}, H, W], got {list(latents.shape)}"
            )
        batch, frames, _, height, width = latents.shape
        if prompt.keys[0].shape[0] != batch:
            raise ValueError(f"prompt must hold {batch} rows, one a video, got {prompt.keys[0].shape[0]}")
        if height % PATCH[1] or width % PATCH[2]:
            raise ValueError(f"latents must have even height and width, got {height} x {width}")
        positions = range(frames) if frame_positions is None else frame_positions
        if len(positions) != frames:
            raise ValueError(f"frame_positions must name each of {frames} frames, got {len(positions)}")
        time = timesteps if isinstance(timesteps, TimeEmbedding) else self.embed_timesteps(timesteps)
        if time.e.shape[0] not in (1, batch) or time.e.shape[1] not in (1, frames):
            raise ValueError(
                f"timesteps must be [{batch}] or [{batch}, {frames}], got {list(time.e.shape[:2])}"
            )
        return self.embed_latents(latents), time, self.rope(positions, height, width)

    def embed_latents(self, latents: Tensor) -> Tensor:
        """Latents [B, F, C, H, W] to tokens [B, N, D]."""
        weight = self.patch_embedding.weight.flatten(1)
        return F.linear(patchify(latents.to(self.dtype)), weight, self.patch_embedding.bias)

    def denoise_tokens(
        self, x: Tensor, time: TimeEmbedding, rope: Tensor, prompt: PromptCache, attention: Attention
    ) -> Tensor:
        """Tokens [B, N, D] through all blocks and the head: [B, N, 4 * out_channels]."""
        for i, block in enumerate(self.blocks):
            projected = time.blocks[i] if time.blocks else time.projected
            x = block(x, projected, rope, prompt.keys[i], prompt.values[i], attention.for_layer(i))
        return self.head(x, time.head or time.e)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor | TimeEmbedding,
        prompt: PromptCache,
        *,
        attention: Attention | None = None,
        frame_positions: Tensor | Sequence[float] | None = None,
    ) -> Tensor:
        """Predict the flow ``noise - x0``.

        Args:
            latents: [B, F, C, H, W]; H and W even.
            timesteps: [B] or [B, F], real valued in 0..1000; or already embedded.
            prompt: from `encode_prompt`.
            attention: what self-attention sees; None: everything.
            frame_positions: [F] on the host, absolute latent-frame index of each frame; None: 0..F-1.

        Returns:
            [B, F, C, H, W], in the model's dtype.

        Raises:
            ValueError: when shapes do not fit.
        """
        x, time, rope = self._enter(latents, timesteps, prompt, frame_positions)
        tokens = self.denoise_tokens(x, time, rope, prompt, attention or BidirectionalAttention())
        return unpatchify(tokens, latents.shape[1], *latents.shape[3:])

    def write_cache(
        self,
        latents: Tensor,
        timesteps: Tensor | TimeEmbedding,
        prompt: PromptCache,
        *,
        attention: CachingAttention,
        frame_positions: Tensor | Sequence[float],
    ) -> None:
        """The clean call: write the chunk's keys and values, and compute nothing that they do not need.

        Takes what `forward` takes.
        """
        x, time, rope = self._enter(latents, timesteps, prompt, frame_positions)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            projected = time.blocks[i] if time.blocks else time.projected
            layer = attention.for_layer(i)
            if i < last:
                x = block(x, projected, rope, prompt.keys[i], prompt.values[i], layer)
            else:
                block.append(x, projected, rope, layer)
