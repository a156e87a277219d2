"""The plain torch backend: runs everywhere torch does, without compiling anything."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from pyrf.cache import SinkRingCache
from pyrf.config import PATCH, StreamConfig
from pyrf.models.attention import CachedAttention
from pyrf.models.dit import PromptCache, TimeEmbedding, WanModel


class TorchBackend:
    """Computes the calls of one stream with a `WanModel`, eagerly.

    Args:
        model: the student, on its device and in its dtype.
        stream: how the stream is cut.
    """

    def __init__(self, model: WanModel, stream: StreamConfig) -> None:
        self.model, self.stream = model, stream
        self.cache: SinkRingCache | None = None
        self._attention: CachedAttention | None = None
        self._prompt: PromptCache | None = None
        self._times: dict[float, TimeEmbedding] = {}
        self._recent: deque[Tensor] = deque()

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""
        return self.model.device

    def start(self, batch: int, height: int, width: int) -> None:
        """Begin a new stream: an empty cache and no prompt.

        Args:
            batch: videos made together.
            height, width: of the latents, even.

        Raises:
            ValueError: when a size is not one the network takes.
        """
        if height < PATCH[1] or width < PATCH[2] or height % PATCH[1] or width % PATCH[2]:
            raise ValueError(f"height and width of latents must be even and positive, got {height} x {width}")
        self.close()
        self.cache = SinkRingCache(
            self.model.config,
            self.stream,
            batch=batch,
            tokens_per_frame=height // PATCH[1] * (width // PATCH[2]),
            dtype=self.model.dtype,
            device=self.model.device,
        )
        self._attention = CachedAttention(self.cache)
        self._shape = (batch, self.stream.chunk_frames, self.model.config.in_channels, height, width)

    def close(self) -> None:
        """Let go of the stream's memory."""
        self.cache = self._attention = self._prompt = None
        self._times.clear()
        self._recent.clear()

    def _started(self) -> tuple[SinkRingCache, CachedAttention]:
        if self.cache is None or self._attention is None:
            raise RuntimeError("the backend has no stream: call start() first")
        return self.cache, self._attention

    def _prompted(self) -> PromptCache:
        if self._prompt is None:
            raise RuntimeError("the stream has no prompt: call start(), then set_prompt()")
        return self._prompt

    def ready(self) -> tuple[SinkRingCache, CachedAttention, PromptCache]:
        """What a call needs.

        Raises:
            RuntimeError: before `start` and `set_prompt`.
        """
        prompt, (cache, attention) = self._prompted(), self._started()
        return cache, attention, prompt

    def _ready(self, latents: Tensor) -> tuple[SinkRingCache, CachedAttention, PromptCache]:
        """What a call needs, once the latents are known to fit."""
        ready = self.ready()
        if latents.shape != self._shape:
            raise ValueError(f"latents must be {list(self._shape)}, got {list(latents.shape)}")
        return ready

    def rope(self) -> Tensor:
        """The rotation of the chunk under way, see `rope_table`."""
        return self.model.rope(self._started()[0].frame_positions, *self._shape[3:])

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
        cache, attention = self._started()
        if cache.open:
            raise RuntimeError(f"chunk {cache.chunk} is under way: the prompt changes between chunks")
        batch = cache.keys[0].shape[0]
        if len(prompt_embeds) not in (1, batch):
            raise ValueError(f"prompt_embeds must hold 1 or {batch} prompts, got {len(prompt_embeds)}")
        prompt = self.model.encode_prompt(prompt_embeds.to(self.device))
        self._prompt = PromptCache(
            tuple(k.expand(batch, -1, -1, -1) for k in prompt.keys),
            tuple(v.expand(batch, -1, -1, -1) for v in prompt.values),
        )
        if recache:
            chunks = cache.ring_chunks
            for chunk, latents in zip(chunks, list(self._recent)[-len(chunks) :]):
                with cache.rewrite(chunk) as positions:
                    self.model.write_cache(
                        latents, self.time(0.0), self._prompt, attention=attention, frame_positions=positions
                    )

    def time(self, timestep: float) -> TimeEmbedding:
        """The embedding of a timestep, made once a stream and shared by all videos, frames and chunks."""
        if timestep not in self._times:
            timesteps = torch.full((1,), timestep, dtype=torch.float64, device=self.device)
            self._times[timestep] = self.model.modulate(self.model.embed_timesteps(timesteps))
        return self._times[timestep]

    @torch.inference_mode()
    def begin_chunk(self) -> None:
        """Make room for the next chunk; the one it overwrites goes into the sink.

        Raises:
            RuntimeError: before `start` and `set_prompt`, or inside a chunk.
        """
        self._prompted()
        self._started()[0].begin_chunk()

    @torch.inference_mode()
    def denoise(self, latents: Tensor, timestep: float) -> Tensor:
        """A denoise call of the current chunk.

        Args:
            latents: [B, chunk_frames, C, H, W].
            timestep: in 0..1000.

        Returns:
            The flow, of the latents' shape and the model's dtype.

        Raises:
            RuntimeError: outside a chunk.
            ValueError: when the shape does not fit the stream.
        """
        cache, attention, prompt = self._ready(latents)
        return self.model(
            latents,
            self.time(timestep),
            prompt,
            attention=attention,
            frame_positions=cache.frame_positions,
        )

    @torch.inference_mode()
    def clean(self, latents: Tensor) -> None:
        """The clean call: write the chunk's keys and values for good, and end the chunk.

        Takes and raises what `denoise` does.
        """
        cache, attention, prompt = self._ready(latents)
        self.model.write_cache(
            latents,
            self.time(0.0),
            prompt,
            attention=attention,
            frame_positions=cache.frame_positions,
        )
        self.end_chunk(latents)

    def end_chunk(self, latents: Tensor) -> None:
        """End the chunk, whose clean latents are written."""
        self._recent.append(latents)
        if len(self._recent) > self.stream.slots:
            self._recent.popleft()
        self._started()[0].commit()
