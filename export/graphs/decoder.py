"""A decoder's step as a graph: a chunk of latents and what the chunk before left, to frames and the same."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pyrf.config import LatentSize
from pyrf.dtypes import dtype_of
from pyrf.export.graphs.trace import TracedGraph, graph_spec, trace
from pyrf.models.codecs import taehv
from pyrf.models.codecs.codec import Codec
from pyrf.models.codecs.taehv import MemoryBlock, TAEHVCodec


class _TAEHVStep(nn.Module):
    def __init__(self, codec: TAEHVCodec) -> None:
        super().__init__()
        self.model = codec.network
        self.dtype = next(codec.network.decoder.parameters()).dtype
        self.places = [i for i, layer in enumerate(codec.network.decoder) if isinstance(layer, MemoryBlock)]

    def forward(self, latents: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        carried = dict(zip(self.places, memory or ()))
        frames = taehv.decode_frames(self.model, latents.to(self.dtype), carried, memory is None)
        return frames, [carried[place] for place in self.places]


class _WanVAEStep(nn.Module):
    def __init__(self, codec: Codec, latents: Tensor) -> None:
        from pyrf.models.codecs.wan_vae import (  # imports diffusers
            WanVAE,
            finish_frames,
            new_cache,
            raw_frames,
        )

        super().__init__()
        assert isinstance(codec, WanVAE)
        self.codec, self.model = codec, codec.network
        self._new_cache, self._raw_frames, self._finish = new_cache, raw_frames, finish_frames
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            cache = new_cache(self.model.decoder)
            for first in (True, False):
                finish_frames(raw_frames(codec, latents, cache, first))
        # Some convolutions that are counted keep nothing.
        self.places = [i for i, entry in enumerate(cache) if isinstance(entry, Tensor)]
        self.shapes = [tuple(cache[place].shape) for place in self.places]

    def forward(self, latents: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        cache = self._new_cache(self.model.decoder)
        for place, tensor in zip(self.places, memory or ()):
            cache[place] = tensor
        frames = self._finish(self._raw_frames(self.codec, latents, cache, memory is None))
        return frames, [self._whole(cache[place], shape) for place, shape in zip(self.places, self.shapes)]

    def _whole(self, entry: Any, shape: tuple[int, ...]) -> Tensor:
        """What a convolution must know, with the zeros that it sees before the stream.

        After a first chunk of one latent frame it knows less than later, or, as a word says, nothing.
        """
        if isinstance(entry, str):
            weight = self.model.post_quant_conv.weight
            return torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        known: Tensor = entry
        missing = shape[2] - known.shape[2]
        return F.pad(known, (0, 0, 0, 0, missing, 0)) if missing else known


def decoder_graphs(codec: Codec, chunk_frames: int, size: LatentSize) -> dict[str, TracedGraph]:
    """Trace the decoder's step at batch 1.

    Args:
        codec: on the CPU, its decoder in the dtype to export.
        chunk_frames: latent frames of a chunk.
        size: of the latents.

    Returns:
        "decoder_first" and "decoder_next".
    """
    latents = torch.zeros(1, chunk_frames, codec.latent_channels, *size, dtype=torch.float32, device="cpu")
    step = _TAEHVStep(codec) if isinstance(codec, TAEHVCodec) else _WanVAEStep(codec, latents)
    outputs = ["frames", "memory_out.*"]
    first = trace(step, {"latents": latents}, outputs)
    memory = [
        torch.zeros(spec.shape, dtype=dtype_of(spec.dtype), device="cpu")
        for spec in graph_spec("", first).outputs
        if spec.name.startswith("memory_out.")
    ]
    return {
        "decoder_first": first,
        "decoder_next": trace(step, {"latents": latents, "memory": memory}, outputs),
    }
