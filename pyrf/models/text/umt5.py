"""The UMT5 encoder that Wan reads prompts with, under the parameter names of Wan's own checkpoints.

The same network as transformers' UMT5EncoderModel. It stands here because importing that class takes
longer than everything else between a command and its first frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyrf.checks import check_positive, check_whole
from pyrf.models.attention import softmax_attention


@dataclass(frozen=True)
class UMT5Config:
    """Sizes of the encoder. The defaults are UMT5-XXL."""

    vocab_size: int = 256384
    dim: int = 4096
    attention_dim: int = 4096
    ffn_dim: int = 10240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check = check_positive if name == "eps" else check_whole
            check(name, value)
        if self.attention_dim % self.num_heads:
            raise ValueError(
                f"attention_dim must split into num_heads, got {self.attention_dim} and {self.num_heads}"
            )
        if self.num_buckets < 4 or self.num_buckets % 2 or self.max_distance <= self.num_buckets // 4:
            raise ValueError(
                f"num_buckets must be even, at least 4 and below 4 * max_distance, "
                f"got {self.num_buckets} and max_distance {self.max_distance}"
            )


def position_buckets(length: int, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """Bucket of each (query, key) pair, [length, length] long.

    Half of the buckets are for keys after the query. Of each half, half are exact distances and the
    rest grow with the logarithm up to `max_distance`.
    """
    positions = torch.arange(length, dtype=torch.int64, device=device)
    offset = positions[None, :] - positions[:, None]
    half = num_buckets // 2
    exact = half // 2
    distance = offset.abs()
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


class RMSNorm(nn.Module):
    """Root-mean-square norm in fp32, cast back before the weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (x * scale).to(self.weight.dtype)


class Attention(nn.Module):
    """Self-attention with an additive bias and, as in every T5, no scaling of the scores."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q = nn.Linear(config.dim, config.attention_dim, bias=False)
        self.k = nn.Linear(config.dim, config.attention_dim, bias=False)
        self.v = nn.Linear(config.dim, config.attention_dim, bias=False)
        self.o = nn.Linear(config.attention_dim, config.dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        mixed = softmax_attention(q, k, v, mask=bias, scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Gated feed-forward: fc2(fc1(x) * gelu(gate(x)))."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim, bias=False), nn.GELU(approximate="tanh")
        )
        self.fc1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.fc2 = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x) * self.gate(x))


class RelativePositions(nn.Module):
    """A learned score for each head and bucket of distance; UMT5 has one table a layer."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_buckets, config.num_heads)

    def forward(self, buckets: Tensor) -> Tensor:
        """Buckets [L, L] to scores [1, heads, L, L]."""
        return self.embedding(buckets).permute(2, 0, 1)[None]


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and with a residual."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.dim, config.eps)
        self.attn = Attention(config)
        self.norm2 = RMSNorm(config.dim, config.eps)
        self.ffn = FeedForward(config)
        self.pos_embedding = RelativePositions(config)

    def forward(self, x: Tensor, buckets: Tensor, keep: Tensor) -> Tensor:
        bias = self.pos_embedding(buckets).masked_fill(~keep[:, None, None, :], torch.finfo(x.dtype).min)
        x = x + self.attn(self.norm1(x), bias)
        return x + self.ffn(self.norm2(x))


class UMT5Encoder(nn.Module):
    """Token ids to text rows."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.eps)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        """Encode a batch.

        Args:
            ids: [B, L] long.
            keep: [B, L] bool, False at padding, which no token attends to.

        Returns:
            [B, L, dim]; rows at padding are meaningless.
        """
        config = self.config
        buckets = position_buckets(ids.shape[1], config.num_buckets, config.max_distance, ids.device)
        x = self.token_embedding(ids)
        for block in self.blocks:
            x = block(x, buckets, keep)
        return self.norm(x)
