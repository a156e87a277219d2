"""The least time that the hardware needs for the kernels and for a chunk.

An operation takes at least its floating-point operations over the peak rate, and at least its bytes over
the bandwidth; its floor is the larger. Sizes: N tokens of a chunk, K = slots N tokens of a full window, T
tokens of the prompt, D channels, F of the feed-forward, p time pairs of a head; elements are bfloat16 (2
bytes). A multiply-add is two operations, and each tensor is read once and written once.

    product [N, D] [D, E]   2 N D E operations; 2 (N D + D E + N E) bytes
    ring_attention          4 N K D: q k and w v; 2 (2 N D + 2 K D): q, out, keys and values
    cross-attention         4 N T D; 2 (2 N D + 2 T D)
    norm_rope_append        14 N D: q and k each squared and summed (2), scaled twice (2), turned (3);
                            12 N D: q, k and v in and out, 4 N head_dim: table, 4 D: weights
    ema_sink_update         6 N D: keys and values blended (3), 6 N p heads: keys turned;
                            20 N D: of keys and of values the slot and its master in and out, the evicted in
                            (24 N D beside a float32 master, as of float16: the slot is only written)
    norm                    5 N D; 4 N D: in and out
    gated sum               2 N D; 6 N D: two in, one out
    add_norm                7 N D: a gated sum and its norm; 8 N D: two in, both out, 6 D: gate, weight, shift

Kernels over a cache of e4m3 (1 byte), and those that give rows of it with a scale (4 bytes) for each:

    ring_attention_e4m3     4 N K D; 4 N D + 2 K D: q and out in 2 bytes, keys and values in 1
    norm_rope_append        14 N D; 10 N D: k and v out in 1 byte; the table and the weights
    ema_sink_update         6 N D + 6 N p heads; 20 N D: the evicted in and the slot out in 1 byte, and the
                            float32 master in and out
    add_norm_e4m3           10 N D: what is normed has also its size, the largest, a product; 7 N D + 4 N, 6 D
    quantise_rows           3 N D; 3 N D + 4 N
    quantise_rows of GELU   13 N F: GELU (10) and that; 3 N F + 4 N

A network call runs, in every layer: the products q, k, v, o (each D to D), `norm_rope_append`,
`ring_attention`, the products of cross-attention q and o, its norm of q, cross-attention itself, the two
products of the feed-forward (D to F to D), three sums and three layer norms, two of which are each of a sum
just formed (`add_norm`); then the patches in and the head out. Biases, activations and modulations ride along
with products and norms; the embedding of the timestep, a few vectors, is left out. The prompt's keys and
values are made once per prompt, not per call.

A stream may be split over R ranks. Each has a band of n tokens, N / R if bands are even, and D / R channels
of whole heads. Products, norms, sums and cross-attention run on n tokens, `ring_attention` and the sink on
D / R channels. The norms of q and k are then apart from the rotation and the write into the cache. In a layer
ranks exchange

    exchange                8 (N - n) D / R bytes: q, k and v of own tokens out, and what was mixed for others

at the rate of a link in one direction. The last layer of a clean call, which exchanges half as much, is
counted whole. Latents and the start of a collective are left out.

Adapters are merged between chunks, when a strength changes. Of the w weights of all blocks' products, with
rank r, a merge takes 2 r operations and 20 bytes each: the base's value is read (2) and widened (4), the
product is added (8), and the sum is read and rounded (6). It runs in float32, without tensor cores.

A chunk is the denoise calls, a clean call, which stops at the keys and values of the last layer, and one
`ema_sink_update` a layer. Decoding to frames is another network and not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from pyrf.config import PATCH, LatentSize, ModelConfig, StreamConfig
from pyrf.models.wan21 import LATENTS, LatentGeometry
from pyrf.reports.ceilings import Ceiling

ELEMENT = 2
"""Bytes of a bfloat16."""


@dataclass(frozen=True)
class Work:
    """What an operation has to do, once or several times.

    Attributes:
        sent: bytes that go to other GPUs, and as many come from there.
    """

    name: str
    flops: float
    bytes: float
    times: int = 1
    sent: float = 0.0

    def floor(self, device: Ceiling) -> float:
        """Seconds at least."""
        local = max(self.flops / device.flops, self.bytes / device.bandwidth)
        return self.times * max(local, self.sent / device.link_bandwidth)

    def bound(self, device: Ceiling) -> str:
        """What keeps it from being faster."""
        if self.sent:
            return "link"
        return "compute" if self.flops / device.flops >= self.bytes / device.bandwidth else "memory"


@dataclass(frozen=True)
class Sizes:
    """A model, a stream and a frame size: everything that the work depends on.

    Attributes:
        tokens: of a chunk.
        ranks: GPUs that share the stream.
        share: of the tokens, what the busiest of them has.
    """

    model: ModelConfig
    stream: StreamConfig
    tokens: int
    ranks: int = 1
    share: float = 1.0

    @classmethod
    def of(
        cls,
        model: ModelConfig,
        stream: StreamConfig,
        height: int,
        width: int,
        latents: LatentGeometry = LATENTS,
    ) -> Sizes:
        """From the height and width of a frame in pixels, and what a latent frame stands for.

        Raises:
            ValueError: when they are no whole number of tokens.
        """
        sides = (latents.spatial_stride * PATCH[1], latents.spatial_stride * PATCH[2])
        if height < 1 or width < 1 or height % sides[0] or width % sides[1]:
            raise ValueError(f"a frame must be multiples of {sides[0]} x {sides[1]}, got {height} x {width}")
        size = LatentSize(height // latents.spatial_stride, width // latents.spatial_stride)
        return cls(model, stream, stream.chunk_frames * size.tokens)

    @property
    def window(self) -> int:
        """Tokens of a full cache."""
        return self.stream.slots * self.tokens

    @property
    def band(self) -> int:
        """Tokens of a chunk that a rank has."""
        return round(self.share * self.tokens)

    @property
    def own_dim(self) -> int:
        """Channels of the heads that a rank has."""
        return self.model.dim // self.ranks

    @property
    def cache_bytes(self) -> int:
        """Of the keys and values of all layers, masters apart."""
        return 2 * self.model.num_layers * self.window * self.own_dim * ELEMENT


def product(name: str, rows: int, inputs: int, outputs: int) -> Work:
    """[rows, inputs] [inputs, outputs]."""
    values = rows * inputs + inputs * outputs + rows * outputs
    return Work(name, 2 * rows * inputs * outputs, ELEMENT * values)


def attention(name: str, queries: int, keys: int, dim: int) -> Work:
    """Of all heads, without a mask."""
    return Work(name, 4 * queries * keys * dim, ELEMENT * 2 * (queries + keys) * dim)


def norm_rope_append(sizes: Sizes) -> Work:
    n, d = sizes.tokens, sizes.model.dim
    table = 4 * n * sizes.model.head_dim
    return Work("norm_rope_append", 14 * n * d, 6 * ELEMENT * n * d + table + 2 * ELEMENT * d)


def split_norms(sizes: Sizes) -> list[Work]:
    """What `norm_rope_append` does, where tokens and heads are shared out, and the exchanges around it."""
    n, d, band, own = sizes.tokens, sizes.model.dim, sizes.band, sizes.own_dim
    table = 4 * n * sizes.model.head_dim
    return [
        Work("norms of q and k", 8 * band * d, 4 * ELEMENT * band * d + 2 * ELEMENT * d),
        Work("rotation and write", 6 * n * own, 6 * ELEMENT * n * own + table),
        Work("exchange", 0.0, 0.0, sent=4 * ELEMENT * (n - band) * own),
    ]


def _before_attention(sizes: Sizes) -> list[Work]:
    return [norm_rope_append(sizes)] if sizes.ranks == 1 else split_norms(sizes)


def ring_attention(sizes: Sizes) -> Work:
    return attention("ring_attention", sizes.tokens, sizes.window, sizes.own_dim)


def ema_sink_update(sizes: Sizes, *, wide_master: bool = False) -> Work:
    n, d, model = sizes.tokens, sizes.own_dim, sizes.model
    flops = 2 * 3 * n * d + 6 * n * model.rope_pairs[0] * model.num_heads // sizes.ranks
    return Work("ema_sink_update", flops, 2 * (6 if wide_master else 5) * ELEMENT * n * d)


def add_norm(sizes: Sizes) -> Work:
    """Of a chunk's tokens, with a gate."""
    n, d = sizes.band, sizes.model.dim
    return Work("add_norm", 7 * n * d, 4 * ELEMENT * n * d + 3 * ELEMENT * d)


def kernels(sizes: Sizes, *, wide_master: bool = False) -> list[Work]:
    """Our kernels, one launch each, with a full window; the sink's master in 16 bits or in float32."""
    sink = ema_sink_update(sizes, wide_master=wide_master)
    return [sink, norm_rope_append(sizes), ring_attention(sizes), add_norm(sizes)]


def ring_attention_e4m3(sizes: Sizes) -> Work:
    n, d = sizes.tokens, sizes.own_dim
    flops = ring_attention(sizes).flops
    return Work("ring_attention_e4m3", flops, 2 * ELEMENT * n * d + 2 * sizes.window * d)


def quantise_rows(sizes: Sizes, dim: int, *, gelu: bool = False) -> Work:
    n = sizes.band
    name = "quantise_rows, GELU" if gelu else "quantise_rows"
    return Work(name, (13 if gelu else 3) * n * dim, (ELEMENT + 1) * n * dim + 4 * n)


def e4m3_kernels(sizes: Sizes) -> list[Work]:
    """Our kernels of e4m3, one launch each, with a full window."""
    n, d, model = sizes.band, sizes.model.dim, sizes.model
    append, sum_and_norm = norm_rope_append(sizes), add_norm(sizes)
    return [
        replace(ema_sink_update(sizes), name="ema_sink_update, e4m3"),
        replace(append, name="norm_rope_append, e4m3", bytes=append.bytes - 2 * n * d),
        ring_attention_e4m3(sizes),
        Work("add_norm_e4m3", sum_and_norm.flops + 3 * n * d, sum_and_norm.bytes - n * d + 4 * n),
        quantise_rows(sizes, d),
        quantise_rows(sizes, model.ffn_dim, gelu=True),
    ]


class AttentionFloors(NamedTuple):
    """Microseconds at least of one attention over a full window.

    Attributes:
        wide: over bfloat16, with its products.
        narrow: over e4m3, with the GPU's own products of it.
        kernel: the same with what pyrf's kernel multiplies with.
    """

    gpu: str
    wide: float
    narrow: float
    kernel: float


def attention_floors(sizes: Sizes, device: Ceiling) -> AttentionFloors:
    wide, narrow = ring_attention(sizes), ring_attention_e4m3(sizes)
    native = replace(device, flops=device.e4m3_flops)
    kernel = native if device.has_e4m3_mma else device
    seconds = wide.floor(device), narrow.floor(native), narrow.floor(kernel)
    return AttentionFloors(device.name, *(1e6 * each for each in seconds))


def layer(sizes: Sizes) -> list[Work]:
    """What one layer of a network call runs."""
    n, d, model = sizes.band, sizes.model.dim, sizes.model
    square = product("", n, d, d)
    return [
        replace(square, name="self-attention products", times=4),
        *_before_attention(sizes),
        ring_attention(sizes),
        replace(square, name="cross-attention products", times=2),
        attention("cross-attention", n, model.text_len, d),
        product("feed-forward in", n, d, model.ffn_dim),
        product("feed-forward out", n, model.ffn_dim, d),
        replace(add_norm(sizes), times=2),
        Work("norms", 5 * n * d, 2 * ELEMENT * n * d, times=2),
        Work("gated sums", 2 * n * d, 3 * ELEMENT * n * d),
    ]


def _ends(sizes: Sizes) -> tuple[Work, Work]:
    """The patches in and the head out."""
    patch, model = math.prod(PATCH), sizes.model
    return (
        product("patches", sizes.band, patch * model.in_channels, model.dim),
        product("head", sizes.band, model.dim, patch * model.out_channels),
    )


def _times(works: list[Work], times: int) -> list[Work]:
    return [replace(work, times=work.times * times) for work in works]


def call(sizes: Sizes) -> list[Work]:
    """A denoise call."""
    return [*_times(layer(sizes), sizes.model.num_layers), *_ends(sizes)]


def clean_call(sizes: Sizes) -> list[Work]:
    """A call that writes the cache and stops at the last layer's keys and values."""
    square = product("self-attention products", sizes.band, sizes.model.dim, sizes.model.dim)
    last = [replace(square, times=2), *_before_attention(sizes)]
    return [_ends(sizes)[0], *_times(layer(sizes), sizes.model.num_layers - 1), *last]


def chunk(sizes: Sizes) -> list[Work]:
    """A chunk in steady state, with what is done under one name in several places added up."""
    denoise = _times(call(sizes), len(sizes.stream.denoising_steps))
    sink = [replace(ema_sink_update(sizes), times=sizes.model.num_layers)] if sizes.stream.sink_frames else []
    merged: dict[str, Work] = {}
    for work in [*denoise, *clean_call(sizes), *sink]:
        known = merged.get(work.name)
        merged[work.name] = replace(work, times=work.times + known.times) if known else work
    return list(merged.values())


def merge_floor(model: ModelConfig, rank: int, device: Ceiling, *, from_cpu: bool = False) -> float:
    """Seconds at least to change the strength of an adapter on all products of all blocks.

    Args:
        rank: of the adapter.
        from_cpu: whether the base's values of the weights are kept there, and must come first.
    """
    weights = model.num_layers * (8 * model.dim**2 + 2 * model.dim * model.ffn_dim)
    seconds = 2 * rank * weights / device.wide_flops + 20 * weights / device.bandwidth
    return seconds + (ELEMENT * weights / device.host_bandwidth if from_cpu else 0.0)


def total_flops(works: list[Work]) -> float:
    return sum(work.times * work.flops for work in works)


def total_sent(works: list[Work]) -> float:
    """Bytes to other GPUs."""
    return sum(work.times * work.sent for work in works)


def total_floor(works: list[Work], device: Ceiling) -> float:
    """Seconds at least, one operation after another."""
    return sum(work.floor(device) for work in works)
