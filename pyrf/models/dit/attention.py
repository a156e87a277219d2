"""What a self-attention layer may look at: everything, parts, a constant context, or the cache.

The network hands each layer's q, k and v, before norm and rotation, to an attention object. That
is all it knows of caches and of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pyrf.loop.cache import SinkRingCache
from pyrf.loop.rope import ChunkRope
from pyrf.models.attention import softmax_attention
from pyrf.models.dit.parts import Part
from pyrf.ops import norm_rope_append, ring_attention
from pyrf.ops.norm_rope_append import norm_rotate


class LayerAttention(Protocol):
    """Self-attention of one layer."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        """Normalise, rotate and mix.

        Args:
            q, k, v: [B, N, D], any stride between rows.
            norm_q, norm_k: [D], weights of the RMS norms over all channels.
            eps: of the norms.

        Returns:
            [B, N, D], before the output projection.
        """
        ...


class Attention(Protocol):
    """Self-attention of a whole network."""

    def for_layer(self, layer: int) -> LayerAttention:
        """The part that belongs to one layer."""
        ...


class CachingLayer(LayerAttention, Protocol):
    """Self-attention of one layer that keeps what it saw."""

    def append(self, k: Tensor, v: Tensor, norm_k: Tensor, eps: float) -> None:
        """Keep the chunk without attending."""
        ...


class CachingAttention(Protocol):
    """Self-attention of a whole network that keeps what it saw."""

    def for_layer(self, layer: int) -> CachingLayer:
        """The part that belongs to one layer."""
        ...


class BidirectionalAttention:
    """Every token sees every token; the teacher's attention. Differentiable.

    Args:
        rope: the tokens' rotations, see `pyrf.loop.rope.rope_table`. It must never change afterwards.
    """

    def __init__(self, rope: Tensor) -> None:
        self.rope = rope

    def for_layer(self, layer: int) -> LayerAttention:
        return self

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        if q.shape[1] != len(self.rope):
            raise ValueError(f"there are {q.shape[1]} tokens, but rotations for {len(self.rope)}")
        q = norm_rotate(q, norm_q, eps, self.rope)
        k = norm_rotate(k, norm_k, eps, self.rope)
        v = v.unflatten(-1, (-1, q.shape[-1])).transpose(1, 2)
        return self.mix(q, k, v).transpose(1, 2).flatten(2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention proper on [B, heads, N, head_dim]."""
        return softmax_attention(q, k, v)


class PartsAttention(BidirectionalAttention):
    """Parts of the tokens see some of them: parallel training forwards. Differentiable.

    Args:
        rope: see `BidirectionalAttention`.
        parts: all tokens, in order, and what they see.
    """

    def __init__(self, rope: Tensor, parts: Sequence[Part]) -> None:
        super().__init__(rope)
        self.parts = parts

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mixed = []
        for queries, keys in self.parts:
            seen = [torch.cat([x[:, :, part] for part in keys], 2) for x in (k, v)]
            mixed.append(softmax_attention(q[:, :, queries], *seen))
        return torch.cat(mixed, 2)


class PrefixAttention:
    """A chunk sees a constant context and itself: training rollouts. Differentiable in the chunk only.

    Args:
        rope: see `BidirectionalAttention`.
        context: for each layer the rotated keys and the values, each [B, heads, tokens, head_dim].
            The tensors must never change afterwards: checkpointing reads them again in the backward.
    """

    def __init__(self, rope: Tensor, context: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.layers = [_PrefixLayer(rope, k.detach(), v.detach()) for k, v in context]

    def for_layer(self, layer: int) -> LayerAttention:
        return self.layers[layer]


class _PrefixLayer(BidirectionalAttention):
    def __init__(self, rope: Tensor, keys: Tensor, values: Tensor) -> None:
        super().__init__(rope)
        self.keys, self.values = keys, values

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = torch.cat((self.keys, k), 2), torch.cat((self.values, v), 2)
        return softmax_attention(q, k, v)


class CachedAttention:
    """A chunk sees the cache, and writes itself into it: inference. No gradient.

    Args:
        cache: whose current chunk the network computes.
        rope: the chunk's rotations.
    """

    def __init__(self, cache: SinkRingCache, rope: ChunkRope) -> None:
        self.layers = [CachedLayer(cache, rope, k, v) for k, v in zip(cache.keys, cache.values)]

    def for_layer(self, layer: int) -> CachedLayer:
        return self.layers[layer]


class CachedLayer:
    """The part of `CachedAttention` that belongs to one layer."""

    def __init__(self, cache: SinkRingCache, rope: ChunkRope, keys: Tensor, values: Tensor) -> None:
        self.cache, self.rope, self.keys, self.values = cache, rope, keys, values

    def _append(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        if not self.cache.open:
            raise RuntimeError("the cache has no chunk under way: call begin_chunk() first")
        if k.requires_grad:
            raise RuntimeError("cached attention has no gradient: use no_grad, or PrefixAttention to train")
        rope = self.rope.at(self.cache.frame_positions)
        norm_q, norm_k = norm_q.to(q.dtype), norm_k.to(k.dtype)  # autocast leaves weights in float32
        return norm_rope_append(q, k, v, norm_q, norm_k, eps, rope, self.cache.slot, self.keys, self.values)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        q = self._append(q, k, v, norm_q, norm_k, eps)
        keys, values, length = self.cache.visible(self.keys, self.values)
        return ring_attention(q, keys, values, length)

    def append(self, k: Tensor, v: Tensor, norm_k: Tensor, eps: float) -> None:
        """Write the chunk without attending: all that the last layer of a clean call has to do."""
        self._append(k, k, v, norm_k, norm_k, eps)
