"""What the rollouts share that hold a cache: the order of verbs, and recache."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

import torch
from torch import Tensor

from pyrf.backends.base import Rollout
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.held import Timestep
from pyrf.loop.inference import inference


class CachedRollout(Rollout):
    """A rollout whose cache is here.

    Args:
        model, stream, batch, size, device: see `Rollout`; the cache is on the device, too.
        dtype: of the cache.
        heads: of the cache; None: the model's.
    """

    def __init__(
        self,
        model: ModelConfig,
        stream: StreamConfig,
        batch: int,
        size: LatentSize,
        *,
        dtype: torch.dtype,
        device: torch.device,
        heads: int | None = None,
    ) -> None:
        super().__init__(model, stream, batch, size, device)
        self.dtype = dtype
        self.cache = SinkRingCache(
            model, stream, batch=batch, size=size, dtype=dtype, device=device, heads=heads
        )
        self._recent: deque[Tensor] = deque(maxlen=stream.slots)

    @inference()
    def set_prompt(self, prompt_embeds: Tensor, recache: bool = False) -> None:
        if self.cache.open:
            raise RuntimeError(f"chunk {self.cache.chunk} is under way: the prompt changes between chunks")
        self._check_prompt(prompt_embeds)
        self._encode_prompt(prompt_embeds.to(self.device))
        if recache:
            chunks = self.cache.ring_chunks
            for chunk, latents in zip(chunks, list(self._recent)[-len(chunks) :]):
                with self.cache.rewrite(chunk):
                    self._write(latents)

    @inference()
    def begin_chunk(self) -> None:
        self.cache.begin_chunk()

    @inference()
    def denoise(self, latents: Tensor, timestep: Timestep) -> Tensor:
        self._check(latents)
        return self._predict(latents, timestep)

    @inference()
    def clean(self, latents: Tensor) -> None:
        self._check(latents)
        self._write(latents)
        self.end_chunk(latents)

    def _check(self, latents: Tensor) -> None:
        """Refuse a call that may not come, or whose latents do not fit."""
        if not self.cache.open:
            raise RuntimeError("the cache has no chunk under way: call begin_chunk() first")
        self._check_latents(latents)

    def end_chunk(self, latents: Tensor) -> None:
        """End the chunk under way, whose clean latents are written."""
        self._recent.append(latents)
        self.cache.commit()

    def reopen_chunk(self) -> None:
        self.cache.reopen()
        self._recent.pop()

    @abstractmethod
    def _encode_prompt(self, prompt_embeds: Tensor) -> None:
        """Put a prompt in force, [B or 1, text_len, text_dim]."""

    @abstractmethod
    def _predict(self, latents: Tensor, timestep: Timestep) -> Tensor:
        """The flow of the chunk under way; its slot is written."""

    @abstractmethod
    def _write(self, latents: Tensor) -> None:
        """Write the keys and values of clean latents into the slot of the chunk under way."""
