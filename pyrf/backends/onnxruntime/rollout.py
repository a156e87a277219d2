"""A stream in ONNX Runtime: exported graphs on a CPU, driven by the same loop as torch."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.backends.graphs.rollout import GraphRollout, cache_buffers, decoder_turns, keep_entries
from pyrf.backends.onnxruntime.sessions import Binding, GraphSet
from pyrf.config import LatentSize
from pyrf.dtypes import dtype_of
from pyrf.loop.cache import SinkRingCache
from pyrf.models.codecs.codec import Codec, check_latents
from pyrf.ops.library import write_slot


class OnnxRuntimeRollout(GraphRollout):
    """Computes the calls of one stream on the CPU.

    Args:
        graphs: the export.
        batch: videos made together.
        size: of the latents.
        prompt_embeds: [B, text_len, text_dim], or [1, ...] for all videos.
    """

    def __init__(self, graphs: GraphSet, batch: int, size: LatentSize, prompt_embeds: Tensor) -> None:
        super().__init__(graphs.manifest, batch, size, torch.device("cpu"))
        self.graphs = graphs
        self._videos = [_Video(graphs, self.cache, i) for i in range(batch)]
        self.set_prompt(prompt_embeds)

    def _modulate(self, row: Tensor) -> Tensor:
        time = Binding(self.graphs["time"], {})
        time["sinusoid"].copy_(row)
        time.run()
        return time["modulation"]


class _Video:
    """The buffers of one video of a batch, and the graphs bound to them."""

    def __init__(self, graphs: GraphSet, cache: SinkRingCache, index: int) -> None:
        self.graphs, self.cache = graphs, cache
        self._kv = cache_buffers(cache, index)
        self._prompt = Binding(graphs["prompt"], {})
        specs = graphs.manifest.graphs["denoise"].inputs
        self._inputs = {
            spec.name: torch.zeros(spec.shape, dtype=dtype_of(spec.dtype), device="cpu")
            for spec in specs
            if spec.name in ("latents", "modulation", "rope", "position", "length")
        }
        for spec in specs:
            if spec.name.startswith("cross_"):
                self._inputs[spec.name] = self._prompt[spec.name]
        self._denoise = Binding(graphs["denoise"], self._inputs | self._kv)
        self._clean = Binding(graphs["clean"], self._inputs | self._kv)

    def encode_prompt(self, rows: Tensor) -> None:
        self._prompt["prompt_embeds"].copy_(rows)
        self._prompt.run()

    def _set_call(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> None:
        """Fill in what the next call takes, but for the place in the cache."""
        for name, x in (("latents", latents), ("modulation", modulation), ("rope", rope)):
            self._inputs[name].copy_(x)

    def _set_place(self, slot: int, length: int) -> None:
        self._inputs["position"].fill_(slot * self.cache.tokens)
        self._inputs["length"].fill_(length)

    def denoise(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> Tensor:
        self._set_call(latents, modulation, rope)
        self._set_place(int(self.cache.slot), self.cache.length)
        self._denoise.run()
        return self._denoise["flow"][0]

    def clean(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> None:
        self._set_call(latents, modulation, rope)
        order = self.cache.order
        if order is not None:
            self._rewrite(order)
            return
        self._set_place(int(self.cache.slot), self.cache.length)
        self._clean.run()
        keep_entries(self.cache, self._kv, self._clean)

    def _rewrite(self, order: Tensor) -> None:
        """The clean call of a past chunk, which sees some slots only: they are copied out."""
        tokens, seen = self.cache.tokens, len(order)
        scratch = {}
        for name, buffer in self._kv.items():
            slots = buffer.unflatten(2, (-1, tokens))
            scratch[name] = torch.zeros_like(buffer)
            scratch[name].unflatten(2, (-1, tokens))[:, :, :seen] = slots[:, :, order]
        self._set_place(seen - 1, seen * tokens)
        clean = Binding(self.graphs["clean"], self._inputs | scratch)
        clean.run()
        place = int(order[-1]) * tokens
        for name, buffer in self._kv.items():
            entries = clean[name.replace(".", "_out.")]
            if entries is scratch[name]:  # updated in place
                entries = entries.narrow(2, (seen - 1) * tokens, tokens)
            write_slot(buffer, place, entries)


class OnnxDecoder:
    """Decodes a stream chunk by chunk (the `StreamingDecoder` protocol).

    Args:
        graphs: the export.
        codec: whose decoder it is; only its sizes are read.
        batch: videos made together.
    """

    def __init__(self, graphs: GraphSet, codec: Codec, batch: int) -> None:
        self._codec = codec
        self._chunk_frames = graphs.manifest.stream.chunk_frames
        self._videos = [_VideoDecoder(graphs) for _ in range(batch)]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, n * chunk_frames, C, h, w] to frames uint8 [B, T, H, W, 3].

        Raises:
            ValueError: when the latents are not whole chunks of the decoder's size.
        """
        check_latents(latents, self._codec)
        if latents.shape[1] % self._chunk_frames:
            raise ValueError(
                f"an exported decoder takes whole chunks of {self._chunk_frames} latent frames, "
                f"got {latents.shape[1]}"
            )
        chunks = latents.float().split(self._chunk_frames, 1)
        return torch.stack(
            [torch.cat([video.decode(x[i]) for x in chunks]) for i, video in enumerate(self._videos)]
        )


class _VideoDecoder:
    """The decoder of one video."""

    def __init__(self, graphs: GraphSet) -> None:
        self._turns = decoder_turns(graphs.manifest, lambda name, buffers: Binding(graphs[name], buffers))

    def decode(self, latents: Tensor) -> Tensor:
        """A chunk [F, C, h, w] to its frames [T, H, W, 3]."""
        bound = next(self._turns)
        bound["latents"].copy_(latents[None])
        bound.run()
        return bound["frames"][0].clone()
