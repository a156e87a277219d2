"""One rank's part of a stream: its band of every frame, and the cache of its heads.

Norms run over all channels of a rank's own tokens, so they come before the exchange. Rotation and the write
into the cache follow it. A token's place in the cache has no meaning, so tokens stay in the order in which
the ranks send them, and the table of rotations is put in that order instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.backends.torch.parallel.bands import Bands
from pyrf.backends.torch.parallel.exchange import Exchange
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import PATCH, LatentSize, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.held import Timestep
from pyrf.loop.rope import ChunkRope
from pyrf.models.dit.attention import CachingAttention
from pyrf.models.dit.model import WanModel
from pyrf.ops import bias_norm, ring_attention
from pyrf.ops.norm_rope_append import rotate_heads, write_heads


class SplitRollout(TorchRollout):
    """Computes one rank's part of a stream's calls; all ranks are called alike.

    Args:
        model, stream, batch, size, prompt_embeds, cache_dtype: see `TorchRollout`; every rank gets whole
            latents.
        exchange: with the other ranks.
    """

    def __init__(
        self,
        model: WanModel,
        stream: StreamConfig,
        batch: int,
        size: LatentSize,
        prompt_embeds: Tensor,
        cache_dtype: torch.dtype | None,
        exchange: Exchange,
    ) -> None:
        self._exchange, self._bands, self._size = exchange, Bands.of(size, exchange.ranks), size
        heads = model.config.num_heads // exchange.ranks
        super().__init__(model, stream, batch, size, prompt_embeds, cache_dtype, heads)

    def _attention(self) -> CachingAttention:
        return SplitAttention(self.cache, self.rope, self._exchange, self._bands, self._size)

    def _own(self, latents: Tensor) -> Tensor:
        return self._bands.part(latents, self._exchange.rank, PATCH[1])

    def _predict(self, latents: Tensor, timestep: Timestep) -> Tensor:
        """The whole flow on rank 0; nothing on the others."""
        flow = super()._predict(self._own(latents), timestep)
        lengths = [PATCH[1] * length for length in self._bands.lengths]
        return self._exchange.gather(flow, lengths, self._bands.axis)

    def _write(self, latents: Tensor) -> None:
        super()._write(self._own(latents))


class SplitAttention:
    """A chunk sees the cache, and writes itself into it; each rank does so for its heads
    (`pyrf.models.dit.attention.CachingAttention`).

    Args:
        cache: of this rank's heads.
        rope: the chunk's rotations.
        exchange: with the other ranks.
        bands, size: how frames are cut.
    """

    def __init__(
        self, cache: SinkRingCache, rope: ChunkRope, exchange: Exchange, bands: Bands, size: LatentSize
    ) -> None:
        frames = cache.stream.chunk_frames
        places = torch.arange(cache.tokens, dtype=torch.int64, device="cpu")
        places = places.view(frames, size.rows, size.columns)
        parts = [bands.part(places, rank).flatten() for rank in range(exchange.ranks)]
        self._rope, self._order = rope, torch.cat(parts).to(cache.slot.device)
        self._positions: range | None = None
        self._table: Tensor | None = None
        self.cache, self.exchange, self.counts = cache, exchange, [len(part) for part in parts]
        self._layers = [SplitLayer(self, keys, values) for keys, values in zip(cache.keys, cache.values)]

    def for_layer(self, layer: int) -> SplitLayer:
        return self._layers[layer]

    def table(self) -> Tensor:
        """The rotations of the chunk under way, in the order in which ranks send tokens."""
        if self._table is None or self._positions != self.cache.frame_positions:
            self._positions = self.cache.frame_positions
            self._table = self._rope.at(self._positions).index_select(0, self._order)
        return self._table


class SplitLayer:
    """The part of `SplitAttention` that belongs to one layer."""

    def __init__(self, whole: SplitAttention, keys: Tensor, values: Tensor) -> None:
        self._whole, self._cache, self._keys, self._values = whole, whole.cache, keys, values

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        normed = [bias_norm(x, weight, eps=eps, rms=True) for x, weight in ((q, norm_q), (k, norm_k))]
        q, k, v = self._whole.exchange.to_heads([*normed, v], self._whole.counts)
        self._write(k, v)
        keys, values, length = self._cache.visible(self._keys, self._values)
        mixed = ring_attention(rotate_heads(q, self._whole.table()), keys, values, length)
        return self._whole.exchange.to_tokens(mixed, self._whole.counts)

    def append(self, k: Tensor, v: Tensor, norm_k: Tensor, eps: float) -> None:
        normed = bias_norm(k, norm_k, eps=eps, rms=True)
        self._write(*self._whole.exchange.to_heads([normed, v], self._whole.counts))

    def _write(self, k: Tensor, v: Tensor) -> None:
        write_heads(rotate_heads(k, self._whole.table()), v, self._cache.slot, self._keys, self._values)
