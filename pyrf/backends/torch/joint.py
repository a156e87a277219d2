"""Several streams computed in one call: layers see one batch, self-attention sees each stream's own cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.loop.held import Timestep
from pyrf.loop.inference import inference
from pyrf.models.dit.attention import CachingLayer
from pyrf.models.dit.model import PromptCache


class JointRollout:
    """Computes the calls of a chunk of several streams together, under the prompts they have now.

    The streams may have come differently far. Their caches stay where they are, and each is read and written
    at its own positions, so nothing is gathered.

    Args:
        members: rollouts of one model, with latents of one size.
    """

    @inference()
    def __init__(self, members: Sequence[TorchRollout]) -> None:
        self.members = members
        prompts = [member.prompt for member in members]
        self._counts = [member.batch for member in members]
        self._prompt = PromptCache(
            tuple(torch.cat(keys) for keys in zip(*(prompt.keys for prompt in prompts))),
            tuple(torch.cat(values) for values in zip(*(prompt.values for prompt in prompts))),
        )
        self._layers = [
            _JointLayer([member.attention.for_layer(layer) for member in members], self._counts)
            for layer in range(members[0].model_config.num_layers)
        ]

    def for_layer(self, layer: int) -> _JointLayer:
        """Self-attention of a layer (`pyrf.models.dit.attention.CachingAttention`)."""
        return self._layers[layer]

    def begin_chunk(self) -> None:
        """Make room for the next chunk in every cache."""
        for member in self.members:
            member.begin_chunk()

    def reopen_chunk(self) -> None:
        """Make the last chunk anew in every cache."""
        for member in self.members:
            member.reopen_chunk()

    @inference()
    def denoise(self, latents: Tensor, timestep: Timestep) -> Tensor:
        """A denoise call: noisy latents [B of all streams, F, C, H, W] to their flow."""
        first = self.members[0]
        return first.model(latents, first.time(timestep), self._prompt, attention=self)

    @inference()
    def clean(self, latents: Tensor) -> None:
        """The clean call: end the chunk in every cache."""
        first = self.members[0]
        first.model.write_cache(latents, first.time(0.0), self._prompt, attention=self)
        for member, part in zip(self.members, latents.split(self._counts)):
            member.end_chunk(part)


class _JointLayer:
    """A layer's self-attention, stream by stream."""

    def __init__(self, layers: Sequence[CachingLayer], counts: list[int]) -> None:
        self._layers, self._counts = layers, counts

    def attend(self, q: Tensor, k: Tensor, v: Tensor, norm_q: Tensor, norm_k: Tensor, eps: float) -> Tensor:
        parts = zip(self._layers, *(x.split(self._counts) for x in (q, k, v)))
        return torch.cat([layer.attend(q, k, v, norm_q, norm_k, eps) for layer, q, k, v in parts])

    def append(self, k: Tensor, v: Tensor, norm_k: Tensor, eps: float) -> None:
        for layer, own_k, own_v in zip(self._layers, k.split(self._counts), v.split(self._counts)):
            layer.append(own_k, own_v, norm_k, eps)
