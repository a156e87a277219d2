"""The plain torch backend: runs everywhere torch does, without compiling anything."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.backends.base import Rollout
from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.rope import ChunkRope
from pyrf.models.codecs.codec import Codec, StreamingDecoder
from pyrf.models.dit.attention import CachedAttention
from pyrf.models.dit.model import PromptCache, TimeEmbedding, WanModel
from pyrf.models.dit.packed_linear import pack_linears


class TorchRollout(Rollout):
    """Computes the calls of one stream with a `WanModel`, eagerly.

    Args:
        model: the student, on its device and in its dtype.
        stream: how the stream is cut.
    """

    def __init__(self, model: WanModel, stream: StreamConfig) -> None:
        super().__init__(model.config, stream)
        self.model = model
        self._attention: CachedAttention | None = None
        self._prompt: PromptCache | None = None
        self._times: dict[float, TimeEmbedding] = {}

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    def close(self) -> None:
        super().close()
        self._attention = self._prompt = None
        self._times.clear()

    def _begin(self, cache: SinkRingCache, size: LatentSize) -> None:
        self.rope = ChunkRope(self.model_config, size, dtype=self.dtype, device=self.device)
        self._attention = CachedAttention(cache, self.rope)

    def _encode_prompt(self, prompt_embeds: Tensor) -> None:
        prompt, batch = self.model.encode_prompt(prompt_embeds), self._shape[0]
        self._prompt = PromptCache(
            tuple(k.expand(batch, -1, -1, -1) for k in prompt.keys),
            tuple(v.expand(batch, -1, -1, -1) for v in prompt.values),
        )

    def time(self, timestep: float) -> TimeEmbedding:
        """The embedding of a timestep, made once a stream and shared by all videos, frames and chunks."""
        if timestep not in self._times:
            timesteps = torch.full((1,), timestep, dtype=torch.float64, device=self.device)
            self._times[timestep] = self.model.modulate(self.model.embed_timesteps(timesteps))
        return self._times[timestep]

    @property
    def in_force(self) -> tuple[CachedAttention, PromptCache]:
        """What self-attention and cross-attention see.

        Raises:
            RuntimeError: before `start` and `set_prompt`.
        """
        if self._attention is None or self._prompt is None:
            raise RuntimeError("the stream has no prompt: call start(), then set_prompt()")
        return self._attention, self._prompt

    def _predict(self, latents: Tensor, timestep: float) -> Tensor:
        attention, prompt = self.in_force
        return self.model(latents, self.time(timestep), prompt, attention=attention)

    def _write(self, latents: Tensor) -> None:
        attention, prompt = self.in_force
        self.model.write_cache(latents, self.time(0.0), prompt, attention=attention)


class TorchBackend:
    """A model in torch (`pyrf.backends.base.Backend`).

    Args:
        model, codec: loaded, and the engine's own: the model's weights are laid out for the machine.
        stream: how it streams.
    """

    def __init__(self, model: WanModel, codec: Codec, stream: StreamConfig) -> None:
        self.model, self.codec, self.stream = model, codec, stream
        pack_linears(model)

    def check_size(self, height: int, width: int) -> None:
        """Every size will do."""

    def backend(self, height: int, width: int) -> TorchRollout:
        return TorchRollout(self.model, self.stream)

    def decoder(self, batch: int, height: int, width: int) -> StreamingDecoder:
        return self.codec.decoder()
