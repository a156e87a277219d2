"""A decoder's step as a graph: a chunk of latents and what the chunk before left, to frames and the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrf.export.manifest import ExportError
from pyrf.export.trace import TracedGraph, graph_spec, trace
from pyrf.models import taehv
from pyrf.models.codec import Codec
from pyrf.models.taehv import MemoryBlock, TAEHVCodec


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
    def __init__(self, codec: Codec) -> None:
        from pyrf.models.wan_vae import WanVAE  # imports diffusers

        super().__init__()
        assert isinstance(codec, WanVAE)
        self.codec = codec
        self.model = codec.network
        self.places: list[int] = []
        """Places of the cache that hold something after the first chunk, known once that is traced."""

    def forward(self, latents: Tensor, memory: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        from pyrf.models.wan_vae import finish_frames, new_cache, raw_frames

        cache = new_cache(self.model.decoder)
        for place, tensor in zip(self.places, memory or ()):
            cache[place] = tensor
        frames = finish_frames(raw_frames(self.codec, latents, cache, memory is None))
        if memory is None:
            if any(isinstance(entry, str) for entry in cache):
                raise ExportError(
                    "a Wan VAE's decoder can be exported for chunks of 2 latent frames or more, got 1; "
                    "leave the decoder out"
                )
            self.places = [i for i, entry in enumerate(cache) if isinstance(entry, Tensor)]
        return frames, [cache[place] for place in self.places]


def decoder_graphs(codec: Codec, chunk_frames: int, height: int, width: int) -> dict[str, TracedGraph]:
    """Trace the decoder's step at batch 1.

    Args:
        codec: on the CPU, its decoder in the dtype to export.
        chunk_frames: latent frames of a chunk.
        height, width: of the latents.

    Returns:
        "decoder_first" and "decoder_next".

    Raises:
        ExportError: for a Wan VAE with chunks of one latent frame.
    """
    step = _TAEHVStep(codec) if isinstance(codec, TAEHVCodec) else _WanVAEStep(codec)
    latents = torch.zeros(1, chunk_frames, codec.latent_channels, height, width)
    outputs = ["frames", "memory_out.*"]
    first = trace(step, {"latents": latents}, outputs)
    memory = [
        torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
        for spec in graph_spec("", first).outputs
        if spec.name.startswith("memory_out.")
    ]
    return {
        "decoder_first": first,
        "decoder_next": trace(step, {"latents": latents, "memory": memory}, outputs),
    }
