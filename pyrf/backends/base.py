"""What every backend of a stream shares: the cache, the order of verbs, prompt changes and recache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.models.codecs.codec import StreamingDecoder


class Rollout(ABC):
    """Computes the calls of one stream.

    Args:
        model: sizes of the student.
        stream: how the stream is cut.

    Attributes:
        cache: of the stream under way, None before `start` and after `close`.
    """

    def __init__(self, model: ModelConfig, stream: StreamConfig) -> None:
        self.model_config, self.stream = model, stream
        self.cache: SinkRingCache | None = None
        self._prompted = False
        self._recent: deque[Tensor] = deque()

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of the cache."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Of the cache, and where latents are expected."""

    def start(self, batch: int, height: int, width: int) -> None:
        """Begin a new stream: an empty cache and no prompt.

        Args:
            batch: videos made together.
            height, width: of the latents, even.

        Raises:
            ValueError: when a size is not one the backend takes.
        """
        size = LatentSize(height, width)
        self.close()
        self._shape = (batch, self.stream.chunk_frames, self.model_config.in_channels, height, width)
        self.cache = SinkRingCache(
            self.model_config,
            self.stream,
            batch=batch,
            size=size,
            dtype=self.dtype,
            device=self.device,
        )
        self._begin(self.cache, size)

    def close(self) -> None:
        """Let go of the stream's memory."""
        self.cache = None
        self._prompted = False
        self._recent.clear()

    def _started(self) -> SinkRingCache:
        if self.cache is None:
            raise RuntimeError("the backend has no stream: call start() first")
        return self.cache

    def _ready(self, latents: Tensor) -> None:
        """Refuse a call that may not come, or whose latents do not fit."""
        cache = self._started()
        if not self._prompted:
            raise RuntimeError("the stream has no prompt: call start(), then set_prompt()")
        if not cache.open:
            raise RuntimeError("the cache has no chunk under way: call begin_chunk() first")
        if latents.shape != self._shape:
            raise ValueError(f"latents must be {list(self._shape)}, got {list(latents.shape)}")

    @torch.inference_mode()
    def set_prompt(self, prompt_embeds: Tensor, recache: bool = False) -> None:
        """Change the prompt, at a chunk's border: its cross-attention keys and values are made anew.

        Args:
            prompt_embeds: [B, text_len, text_dim], or [1, ...] for all videos.
            recache: also compute the keys and values of the past chunks in the ring again under this
                prompt, oldest first, each seeing the sink and the ring's older chunks. Motion then
                follows the new prompt sooner. The sink, the memory of the stream's beginning, stays.

        Raises:
            RuntimeError: before `start`, or inside a chunk.
            ValueError: when the shape does not fit.
        """
        cache = self._started()
        if cache.open:
            raise RuntimeError(f"chunk {cache.chunk} is under way: the prompt changes between chunks")
        batch = self._shape[0]
        if len(prompt_embeds) not in (1, batch):
            raise ValueError(f"prompt_embeds must hold 1 or {batch} prompts, got {len(prompt_embeds)}")
        self._encode_prompt(prompt_embeds.to(self.device))
        self._prompted = True
        if recache:
            chunks = cache.ring_chunks
            for chunk, latents in zip(chunks, list(self._recent)[-len(chunks) :]):
                with cache.rewrite(chunk):
                    self._write(latents)

    @torch.inference_mode()
    def begin_chunk(self) -> None:
        """Make room for the next chunk; the one it overwrites goes into the sink.

        Raises:
            RuntimeError: before `start` and `set_prompt`, or inside a chunk.
        """
        cache = self._started()
        if not self._prompted:
            raise RuntimeError("the stream has no prompt: call start(), then set_prompt()")
        cache.begin_chunk()

    @torch.inference_mode()
    def denoise(self, latents: Tensor, timestep: float) -> Tensor:
        """A denoise call of the current chunk.

        Args:
            latents: [B, chunk_frames, C, H, W].
            timestep: in 0..1000.

        Returns:
            The flow, of the latents' shape.

        Raises:
            RuntimeError: outside a chunk.
            ValueError: when the shape does not fit the stream.
        """
        self._ready(latents)
        return self._predict(latents, timestep)

    @torch.inference_mode()
    def clean(self, latents: Tensor) -> None:
        """The clean call: write the chunk's keys and values for good, and end the chunk.

        Takes and raises what `denoise` does.
        """
        self._ready(latents)
        self._write(latents)
        self.end_chunk(latents)

    def end_chunk(self, latents: Tensor) -> None:
        """End the chunk under way, whose clean latents are written."""
        self._recent.append(latents)
        if len(self._recent) > self.stream.slots:
            self._recent.popleft()
        self._started().commit()

    def reopen_chunk(self) -> None:
        """Put the last chunk under way again, as `begin_chunk` left it, to make it under another prompt.

        Raises:
            RuntimeError: before the first chunk, or inside a chunk.
        """
        self._started().reopen()
        self._recent.pop()

    @abstractmethod
    def _begin(self, cache: SinkRingCache, size: LatentSize) -> None:
        """Make ready for a stream with this new cache."""

    @abstractmethod
    def _encode_prompt(self, prompt_embeds: Tensor) -> None:
        """Put a prompt in force, [B or 1, text_len, text_dim]."""

    @abstractmethod
    def _predict(self, latents: Tensor, timestep: float) -> Tensor:
        """The flow of the chunk under way; its slot is written."""

    @abstractmethod
    def _write(self, latents: Tensor) -> None:
        """Write the keys and values of clean latents into the slot of the chunk under way."""


class PendingFrames(Protocol):
    """Frames that are being decoded."""

    def result(self) -> Tensor:
        """Wait for them: uint8 [B, T, H, W, 3]."""
        ...


@runtime_checkable
class OverlappedDecoder(StreamingDecoder, Protocol):
    """A decoder that works while the network goes on with the next chunk.

    Its backend does not wait for the GPU either, and can make a chunk again (`Rollout.reopen_chunk`).
    """

    def begin(self, latents: Tensor) -> PendingFrames:
        """Give a chunk of latents [B, F, C, h, w] to the decoder."""
        ...


class Backend(Protocol):
    """A model loaded for one backend; its streams share the weights."""

    def check_size(self, height: int, width: int) -> None:
        """Refuse latents of a size that the backend has no graphs for and can make none.

        Raises:
            ValueError: naming the frame size in pixels that it has.
        """
        ...

    def backend(self, height: int, width: int) -> Rollout:
        """A backend for a stream of latents of this size; `start` it next."""
        ...

    def decoder(self, batch: int, height: int, width: int) -> StreamingDecoder:
        """The decoder of a stream of latents of this size."""
        ...
