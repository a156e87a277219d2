"""A stream in plain torch: runs everywhere torch does, without compiling anything."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.backends.cached import CachedRollout
from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.held import Timestep
from pyrf.loop.inference import inference
from pyrf.loop.rope import ChunkRope
from pyrf.loop.timesteps import PerTimestep
from pyrf.models.dit.attention import CachedAttention, CachingAttention
from pyrf.models.dit.model import PromptCache, TimeEmbedding, WanModel


class TorchRollout(CachedRollout):
    """Computes the calls of one stream with a `WanModel`, eagerly.

    Args:
        model: the student, on its device and in its dtype.
        stream: how the stream is cut.
        batch: videos made together.
        size: of the latents.
        prompt_embeds: [B, text_len, text_dim], or [1, ...] for all videos.
        cache_dtype: of keys and values: the model's, or e4m3; None: the model's.
        heads: of the cache; None: the model's.

    Attributes:
        attention: what self-attention sees.
        prompt: what cross-attention sees, one row per video.
        rope: the rotations of the chunk under way.
    """

    prompt: PromptCache

    def __init__(
        self,
        model: WanModel,
        stream: StreamConfig,
        batch: int,
        size: LatentSize,
        prompt_embeds: Tensor,
        cache_dtype: torch.dtype | None = None,
        heads: int | None = None,
    ) -> None:
        dtype = cache_dtype or model.dtype
        super().__init__(model.config, stream, batch, size, dtype=dtype, device=model.device, heads=heads)
        self.model = model
        self.rope = ChunkRope(model.config, size, dtype=model.dtype, device=model.device)
        self.attention = self._attention()
        self._times = PerTimestep[Timestep, TimeEmbedding]()
        self.set_prompt(prompt_embeds)

    def _attention(self) -> CachingAttention:
        return CachedAttention(self.cache, self.rope)

    @inference()
    def weights_changed(self) -> None:
        self._times = PerTimestep[Timestep, TimeEmbedding]()
        self._encode_prompt(self._prompt_embeds)

    def _encode_prompt(self, prompt_embeds: Tensor) -> None:
        self._prompt_embeds = prompt_embeds
        prompt = self.model.encode_prompt(prompt_embeds)
        self.prompt = PromptCache(
            tuple(k.expand(self.batch, -1, -1, -1) for k in prompt.keys),
            tuple(v.expand(self.batch, -1, -1, -1) for v in prompt.values),
        )

    def time(self, timestep: Timestep) -> TimeEmbedding:
        """The embedding of a timestep, made once per stream and shared by all videos and chunks.

        One timestep is shared by a chunk's frames, too.
        """
        return self._times.get(timestep, self._embed)

    def _embed(self, timestep: Timestep) -> TimeEmbedding:
        frames = timestep if isinstance(timestep, tuple) else (timestep,)
        # Filled there: a GPU that copies from the CPU would be waited for.
        parts = [torch.full((1, 1), frame, dtype=torch.float64, device=self.device) for frame in frames]
        timesteps = torch.cat(parts, dim=1)
        return self.model.modulate(self.model.embed_timesteps(timesteps))

    def _predict(self, latents: Tensor, timestep: Timestep) -> Tensor:
        return self.model(latents, self.time(timestep), self.prompt, attention=self.attention)

    def _write(self, latents: Tensor) -> None:
        self.model.write_cache(latents, self.time(0.0), self.prompt, attention=self.attention)
