"""The Wan diffusion transformer, one network for the causal student and the bidirectional teacher.

Parameter names are those of the official checkpoints, so state dicts load as they are. Tokens are
ordered frame, row, column; a token covers 1 x 2 x 2 latents (`pyrf.config.PATCH`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.config import PATCH, LatentSize, ModelConfig
from pyrf.loop.rope import rope_table
from pyrf.models.dit.attention import Attention, BidirectionalAttention, CachingAttention
from pyrf.models.dit.layers import Block, Head, Modulation, TanhGELU


class PromptCache(NamedTuple):
    """Cross-attention keys and values of each layer, [B, heads, text_len, head_dim]; made once per prompt."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


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

    def _enter(
        self, latents: Tensor, timesteps: Tensor | TimeEmbedding, prompt: PromptCache
    ) -> tuple[Tensor, TimeEmbedding]:
        """Check and embed what comes in: tokens [B, N, D] and the time embedding."""
        if latents.ndim != 5 or latents.shape[2] != self.config.in_channels:
            raise ValueError(
                f"latents must be [B, F, {self.config.in_channels}, H, W], got {list(latents.shape)}"
            )
        batch, frames, _, height, width = latents.shape
        if prompt.keys[0].shape[0] != batch:
            raise ValueError(f"prompt must hold {batch} rows, one a video, got {prompt.keys[0].shape[0]}")
        LatentSize(height, width)
        time = timesteps if isinstance(timesteps, TimeEmbedding) else self.embed_timesteps(timesteps)
        if time.e.shape[0] not in (1, batch) or time.e.shape[1] not in (1, frames):
            raise ValueError(
                f"timesteps must be [{batch}] or [{batch}, {frames}], got {list(time.e.shape[:2])}"
            )
        return self.embed_latents(latents), time

    def embed_latents(self, latents: Tensor) -> Tensor:
        """Latents [B, F, C, H, W] to tokens [B, N, D]."""
        weight = self.patch_embedding.weight.flatten(1)
        return F.linear(patchify(latents.to(self.dtype)), weight, self.patch_embedding.bias)

    def denoise_tokens(
        self, x: Tensor, time: TimeEmbedding, prompt: PromptCache, attention: Attention
    ) -> Tensor:
        """Tokens [B, N, D] through all blocks and the head: [B, N, 4 * out_channels]."""
        for i, block in enumerate(self.blocks):
            projected = time.blocks[i] if time.blocks else time.projected
            x = block(x, projected, prompt.keys[i], prompt.values[i], attention.for_layer(i))
        return self.head(x, time.head or time.e)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor | TimeEmbedding,
        prompt: PromptCache,
        *,
        attention: Attention | None = None,
    ) -> Tensor:
        """Predict the flow ``noise - x0``.

        Args:
            latents: [B, F, C, H, W]; H and W even.
            timesteps: [B] or [B, F], real valued in 0..1000; or already embedded.
            prompt: from `encode_prompt`.
            attention: what self-attention sees, and where its tokens are; None: everything, the frames at
                positions 0..F-1.

        Returns:
            [B, F, C, H, W], in the model's dtype.

        Raises:
            ValueError: when shapes do not fit.
        """
        x, time = self._enter(latents, timesteps, prompt)
        if attention is None:
            positions, size = range(latents.shape[1]), LatentSize(*latents.shape[3:])
            rope = rope_table(self.config, positions, size, dtype=self.dtype, device=self.device)
            attention = BidirectionalAttention(rope)
        tokens = self.denoise_tokens(x, time, prompt, attention)
        return unpatchify(tokens, latents.shape[1], *latents.shape[3:])

    def write_cache(
        self,
        latents: Tensor,
        timesteps: Tensor | TimeEmbedding,
        prompt: PromptCache,
        *,
        attention: CachingAttention,
    ) -> None:
        """The clean call: write the chunk's keys and values, and compute nothing that they do not need.

        Takes what `forward` takes.
        """
        x, time = self._enter(latents, timesteps, prompt)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            projected = time.blocks[i] if time.blocks else time.projected
            layer = attention.for_layer(i)
            if i < last:
                x = block(x, projected, prompt.keys[i], prompt.values[i], layer)
            else:
                block.append(x, projected, layer)
