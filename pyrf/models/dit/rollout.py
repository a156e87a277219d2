"""A network that streams for training and calibration: the loop, cache and sink of inference."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.config import LatentSize, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.rope import ChunkRope, rope_table
from pyrf.loop.sampler import Draw, FewStepSampler, Predict
from pyrf.models.dit.attention import Attention, CachedAttention, PrefixAttention
from pyrf.models.dit.model import PromptCache, WanModel


class ModelRollout:
    """A stream of a network, with a gradient where one is recorded.

    Of each chunk only one call carries the gradient, and only through the chunk itself: what it sees
    of earlier chunks is a constant copy, so that checkpointing may read it again later.

    Args:
        model: the student.
        stream: how the stream is cut.
        prompt: from ``model.encode_prompt``; its gradient, if any, is kept.
        size: of the latents.
    """

    def __init__(self, model: WanModel, stream: StreamConfig, prompt: PromptCache, size: LatentSize) -> None:
        self.model, self.prompt, self.size = model, prompt, size
        self.batch = prompt.keys[0].shape[0]
        self._first, self._later = FewStepSampler(stream, first=True), FewStepSampler(stream)
        self._is_first = True
        self._owns_first = stream.first_chunk_steps is not None
        # Of computation: a sharded model's weights may be kept in another dtype.
        self.dtype, self.device = prompt.keys[0].dtype, prompt.keys[0].device
        self.cache = SinkRingCache(
            model.config, stream, batch=self.batch, size=size, dtype=self.dtype, device=self.device
        )
        self.attention = CachedAttention(
            self.cache, ChunkRope(model.config, size, dtype=self.dtype, device=self.device)
        )

    def _predict(self, attention: Attention) -> Predict:
        def predict(x: Tensor, timestep: float) -> Tensor:
            timesteps = torch.full((self.batch,), timestep, dtype=torch.float32, device=x.device)
            return self.model(x, timesteps, self.prompt, attention=attention)

        return predict

    def _differentiable(self) -> PrefixAttention:
        """The context of the chunk under way, and its rotations, in memory of their own."""
        rope = rope_table(
            self.model.config,
            self.cache.frame_positions,
            self.size,
            dtype=self.dtype,
            device=self.device,
        )
        return PrefixAttention(rope, self.cache.snapshot())

    def next_chunk(self, draw: Draw, exit_step: int) -> Tensor:
        """Roll one chunk out and stop after call ``exit_step``, the one that carries the gradient.

        Args:
            draw: noise, [B, F, C, H, W] per draw.
            exit_step: 0 .. calls - 1; the last is inference's. A first chunk with steps of its own always
                stops after its last.

        Returns:
            The clean latents that call predicts, [B, F, C, H, W].

        Raises:
            ValueError: when there is no such step.
        """
        steps = len(self._later.timesteps)
        if not 0 <= exit_step < steps:
            raise ValueError(f"exit_step must lie in 0..{steps - 1}, got {exit_step}")
        sampler, self._is_first = self._first if self._is_first else self._later, False
        if sampler is self._first and self._owns_first:
            exit_step = len(sampler.timesteps) - 1
        differentiable = torch.is_grad_enabled()
        with torch.no_grad():
            self.cache.begin_chunk()
            predict = self._predict(self.attention)
            x = sampler.noisy(predict, draw(), draw, exit_step)
            if differentiable:
                predict = self._predict(self._differentiable())
        x0 = sampler.x0(predict, x, exit_step)
        with torch.no_grad():
            timesteps = torch.zeros(self.batch, dtype=torch.float32, device=x0.device)
            self.model.write_cache(x0.detach(), timesteps, self.prompt, attention=self.attention)
            self.cache.commit()
        return x0
