"""The self-attention cache of a stream: keys are rotated once, when written, and never move.

A layer holds `slots` chunks in one buffer. Slot 0 is the sink; the others form a ring. Chunk c goes
to slot c while the cache warms up, then over the oldest chunk of the ring, which is first folded
into the sink (EMA-Sink, Reward Forcing, section 3.2). The valid part is always a prefix, and as
attention has no mask the order of slots does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.rope import chunk_turn
from pyrf.ops import ema_sink_update
from pyrf.ops.ema_sink_update import MASTER_DTYPES
from pyrf.ops.library import compute_dtype


class SinkRingCache:
    """Keys and values of every layer, [B, heads, slots * tokens, head_dim], allocated once.

    A chunk begins with `begin_chunk`, is written by any number of network calls, the last of them
    on clean latents, and ends with `commit`.

    Args:
        model, stream: sizes of the network and of the window.
        batch: streams computed together.
        size: of the latents.
        dtype, device: of keys and values; e4m3 (`torch.float8_e4m3fn`) beside a network of any dtype.
        heads: whose keys and values are kept; None: all of the network's.

    Attributes:
        chunk: index of the chunk under way, or of the next one.
        open: whether a chunk is under way.
        slot: int64 scalar on the device, the slot of the current chunk; always the same tensor.
        tokens: of a chunk, the size of a slot.
        length: valid tokens, the current chunk included.
        order: inside `rewrite`, int64 slots that the chunk sees, its own the last; else None.
        keys, values: one view per layer.
        key_masters, value_masters: what `ema_sink_update` keeps beside the sink, if anything.

    Raises:
        ValueError: when the batch is not positive.
    """

    def __init__(
        self,
        model: ModelConfig,
        stream: StreamConfig,
        *,
        batch: int,
        size: LatentSize,
        dtype: torch.dtype,
        device: torch.device | str,
        heads: int | None = None,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.stream = stream
        self.tokens = stream.chunk_frames * size.tokens
        self.has_sink = stream.sink_frames > 0
        heads = heads or model.num_heads
        shape = (model.num_layers, batch, heads, stream.slots * self.tokens, model.head_dim)
        sink_shape = (*shape[:3], self.tokens, model.head_dim)
        with torch.inference_mode(False):  # one cache may serve inference and training
            self.keys = torch.zeros(shape, dtype=dtype, device=device).unbind()
            self.values = torch.zeros(shape, dtype=dtype, device=device).unbind()
            self.key_masters = self.value_masters = None
            if self.has_sink and dtype in MASTER_DTYPES:
                master = MASTER_DTYPES[dtype]
                self.key_masters = torch.zeros(sink_shape, dtype=master, device=device).unbind()
                self.value_masters = torch.zeros(sink_shape, dtype=master, device=device).unbind()
            self.slot = torch.zeros((), dtype=torch.int64, device=device)
            self._turn = chunk_turn(model, stream.chunk_frames, dtype=compute_dtype(dtype), device=device)
        self._begin()

    def reset(self) -> None:
        """Forget everything; the buffers are kept, and hold zeros again.

        What is masked out must be finite, too: a graph multiplies it by zero.
        """
        for buffer in (*self.keys, *self.values, *self._masters()):
            buffer.zero_()
        self._begin()

    def _begin(self) -> None:
        self.chunk = 0
        self.open = False
        self.length = 0
        self.order: Tensor | None = None
        self._rewritten: int | None = None

    def _masters(self) -> list[Tensor]:
        """The sink masters of all layers, where there are any."""
        return [*(self.key_masters or ()), *(self.value_masters or ())]

    @property
    def frame_positions(self) -> range:
        """Absolute latent-frame indices of the current chunk, inside `rewrite` of the one written again."""
        frames = self.stream.chunk_frames
        chunk = self.chunk if self._rewritten is None else self._rewritten
        return range(chunk * frames, (chunk + 1) * frames)

    def slot_of(self, chunk: int) -> int:
        """The slot a chunk is written to."""
        slots = self.stream.slots
        if not self.has_sink:
            return chunk % slots
        return chunk if chunk < slots else 1 + (chunk - 1) % (slots - 1)

    @property
    def ring_chunks(self) -> range:
        """Finished chunks whose own keys and values the cache still holds, the sink's apart."""
        held = self.stream.slots - self.has_sink
        return range(max(int(self.has_sink), self.chunk - held), self.chunk)

    def begin_chunk(self) -> None:
        """Make room for the next chunk: fold the one it overwrites into the sink of every layer.

        Raises:
            RuntimeError: when the chunk before was not committed.
        """
        if self.open:
            raise RuntimeError(f"chunk {self.chunk} is under way: commit() it before the next begins")
        self.slot.fill_(self.slot_of(self.chunk))
        if self.has_sink and self.chunk >= self.stream.slots:
            self._update_sink()
        self.length = min(self.chunk + 1, self.stream.slots) * self.tokens
        self.open = True

    def _update_sink(self) -> None:
        layers = len(self.keys)
        for keys, values, key_master, value_master in zip(
            self.keys,
            self.values,
            self.key_masters or (None,) * layers,
            self.value_masters or (None,) * layers,
        ):
            ema_sink_update(
                keys,
                values,
                key_master,
                value_master,
                self.slot,
                self._turn,
                self.tokens,
                self.stream.sink_alpha,
            )

    def commit(self) -> None:
        """The current chunk's keys and values are final.

        Raises:
            RuntimeError: when no chunk is under way.
        """
        if not self.open:
            raise RuntimeError("no chunk is under way: begin_chunk() comes before commit()")
        if self.chunk == 0 and any(master.is_floating_point() for master in self._masters()):
            self._seed_masters()
        self.open = False
        self.chunk += 1

    def reopen(self) -> None:
        """Put the last chunk under way again: its slot is written anew, and nothing is evicted twice.

        Raises:
            RuntimeError: when a chunk is under way, or there is none yet.
        """
        if self.open or self.chunk == 0:
            raise RuntimeError("reopen() comes after a commit()")
        self.chunk -= 1
        self.slot.fill_(self.slot_of(self.chunk))
        self.open = True

    def _seed_masters(self) -> None:
        """Start float32 masters from the first sink (a bfloat16's hidden bits start at zero anyway)."""
        for cache, master in zip((*self.keys, *self.values), self._masters()):
            master.copy_(cache.narrow(2, 0, self.tokens))

    def visible(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, int]:
        """What the current chunk attends to: a layer's keys and values, of which a prefix is valid."""
        if self.order is None:
            return keys, values, self.length
        gathered = [
            x.unflatten(2, (-1, self.tokens)).index_select(2, self.order).flatten(2, 3)
            for x in (keys, values)
        ]
        return gathered[0], gathered[1], gathered[0].shape[2]

    @contextmanager
    def rewrite(self, chunk: int) -> Iterator[None]:
        """Inside, a chunk of the ring is the current one, in its own place; it sees sink and older chunks.

        Raises:
            RuntimeError: when a chunk is under way.
            ValueError: when the ring no longer holds the chunk.
        """
        if self.open:
            raise RuntimeError(f"chunk {self.chunk} is under way: rewrite between chunks")
        if chunk not in self.ring_chunks:
            raise ValueError(f"chunk must be one of the ring's {list(self.ring_chunks)}, got {chunk}")
        order = [0] if self.has_sink else []
        order += [self.slot_of(c) for c in range(self.ring_chunks.start, chunk + 1)]
        with torch.inference_mode(False):
            self.order = torch.tensor(order, dtype=torch.int64, device="cpu").to(self.slot.device)
        self.slot.fill_(order[-1])
        self.open, self._rewritten = True, chunk
        try:
            yield
        finally:
            self.open, self.order, self._rewritten = False, None, None

    def snapshot(self) -> list[tuple[Tensor, Tensor]]:
        """Copies of what the current chunk sees besides itself, for `PrefixAttention`.

        Returns:
            For each layer the keys and values, [B, heads, tokens, head_dim].

        Raises:
            RuntimeError: when no chunk is under way.
        """
        if not self.open:
            raise RuntimeError("no chunk is under way: begin_chunk() comes before snapshot()")
        start = self.slot_of(self.chunk) * self.tokens
        stop = start + self.tokens
        return [
            (
                torch.cat((keys[:, :, :start], keys[:, :, stop : self.length]), 2),
                torch.cat((values[:, :, :start], values[:, :, stop : self.length]), 2),
            )
            for keys, values in zip(self.keys, self.values)
        ]
