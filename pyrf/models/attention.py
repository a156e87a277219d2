"""What a self-attention layer may look at: everything, a mask, or a constant context before it.

The network hands each layer's q, k and v, before norm and rotation, to an attention object. That
is all it knows of caches: `pyrf.cache` supplies one more kind, which reads and writes in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class LayerAttention(Protocol):
    """Self-attention of one layer."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float, rope: Tensor
    ) -> Tensor:
        """Normalise, rotate and mix.

        Args:
            q, k, v: [B, N, D], any stride between rows.
            norm_q, norm_k: [D], weights of the RMS norms over all channels.
            eps: of the norms.
            rope: [N, head_dim / 2, 2], cosine and sine of each token (see `rope_table`).

        Returns:
            [B, N, D], before the output projection.
        """
        ...


class Attention(Protocol):
    """Self-attention of a whole network."""

    def for_layer(self, layer: int) -> LayerAttention:
        """The part that belongs to one layer."""
        ...


def rope_table(
    frame_positions: Sequence[float],
    rows: int,
    columns: int,
    head_dim: int,
    theta: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Cosines and sines of every token, [frames * rows * columns, head_dim / 2, 2].

    Of the pairs of a head the last two thirds turn with row and column, the rest with the frame.
    Angles are formed in float64 on the host, so that positions of any size stay exact.
    """
    pairs = head_dim // 2
    side = head_dim // 6
    axes = (
        (torch.tensor(frame_positions, dtype=torch.float64), pairs - 2 * side, (-1, 1, 1)),
        (torch.arange(rows, dtype=torch.float64), side, (1, -1, 1)),
        (torch.arange(columns, dtype=torch.float64), side, (1, 1, -1)),
    )
    parts = []
    for positions, count, shape in axes:
        frequencies = theta ** (-torch.arange(count, dtype=torch.float64) / max(count, 1))
        angles = torch.outer(positions, frequencies)
        table = torch.stack((angles.cos(), angles.sin()), -1)
        parts.append(table.view(*shape, count, 2).expand(len(frame_positions), rows, columns, count, 2))
    return torch.cat(parts, 3).flatten(0, 2).to(device=device, dtype=dtype)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn adjacent channel pairs of x [B, N, heads, head_dim] by rope [N, head_dim / 2, 2]."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope.unsqueeze(1).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def norm_rotate(x: Tensor, weight: Tensor, eps: float, rope: Tensor) -> Tensor:
    """RMS norm over all channels of x [B, N, D], then rotation: [B, heads, N, head_dim]."""
    normed = F.rms_norm(x, (x.shape[-1],), weight, eps)
    return rotate(normed.unflatten(-1, (-1, 2 * rope.shape[1])), rope).transpose(1, 2)


class BidirectionalAttention:
    """Every token sees every token; the teacher's attention. Differentiable."""

    def for_layer(self, layer: int) -> LayerAttention:
        return self

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float, rope: Tensor
    ) -> Tensor:
        q = norm_rotate(q, norm_q, eps, rope)
        k = norm_rotate(k, norm_k, eps, rope)
        v = v.unflatten(-1, (-1, q.shape[-1])).transpose(1, 2)
        return self.mix(q, k, v).transpose(1, 2).flatten(2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention proper on [B, heads, N, head_dim]."""
        return F.scaled_dot_product_attention(q, k, v)


class MaskedAttention(BidirectionalAttention):
    """Tokens see what a mask allows: parallel training forwards of a causal student. Differentiable.

    Args:
        mask: [N, N] bool, true where the query (row) may see the key (column); see `pyrf.models.masks`.
    """

    def __init__(self, mask: Tensor) -> None:
        if mask.dtype != torch.bool or mask.ndim != 2:
            raise ValueError(f"mask must be bool [queries, keys], got {mask.dtype} {list(mask.shape)}")
        self.mask = mask

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


class PrefixAttention:
    """A chunk sees a constant context and itself: training rollouts. Differentiable in the chunk only.

    Args:
        context: for each layer the rotated keys and the values, each [B, heads, tokens, head_dim].
            The tensors must never change afterwards: checkpointing reads them again in the backward.
    """

    def __init__(self, context: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.layers = [_PrefixLayer(k.detach(), v.detach()) for k, v in context]

    def for_layer(self, layer: int) -> LayerAttention:
        return self.layers[layer]


class _PrefixLayer(BidirectionalAttention):
    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = torch.cat((self.keys, k), 2), torch.cat((self.values, v), 2)
        return F.scaled_dot_product_attention(q, k, v)
