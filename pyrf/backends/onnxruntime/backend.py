"""The ONNX Runtime backend: exported graphs on a CPU, driven by the same loop as torch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pyrf.backends.graphs.backend import GraphBackend
from pyrf.backends.graphs.rollout import GraphRollout, GraphVideo, cache_buffers, decoder_turns
from pyrf.backends.onnxruntime.sessions import Binding, GraphSet
from pyrf.bundle.bundle import Bundle
from pyrf.dtypes import dtype_of
from pyrf.export.manifest import load_manifest
from pyrf.loop.cache import SinkRingCache
from pyrf.models.codecs.codec import Codec, check_latents


class OnnxRuntimeRollout(GraphRollout):
    """Computes the calls of one stream on the CPU.

    Args:
        graphs: the export.
    """

    def __init__(self, graphs: GraphSet) -> None:
        super().__init__(graphs.manifest)
        self.graphs = graphs

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def _make_videos(self, cache: SinkRingCache, batch: int) -> list[GraphVideo]:
        return [_Video(self.graphs, cache, i) for i in range(batch)]

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
            spec.name: torch.zeros(spec.shape, dtype=dtype_of(spec.dtype))
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

    def _rewrite(self, order: Tensor) -> None:
        """The clean call of a past chunk, which sees some slots only: they are copied out."""
        tokens, seen = self.cache.tokens, len(order)
        scratch = {}
        for name, buffer in self._kv.items():
            slots = buffer.unflatten(2, (-1, tokens))
            scratch[name] = torch.zeros_like(buffer)
            scratch[name].unflatten(2, (-1, tokens))[:, :, :seen] = slots[:, :, order]
        self._set_place(seen - 1, seen * tokens)
        Binding(self.graphs["clean"], self._inputs | scratch).run()
        for name, buffer in self._kv.items():
            written = scratch[name].unflatten(2, (-1, tokens))[:, :, seen - 1]
            buffer.unflatten(2, (-1, tokens))[:, :, int(order[-1])] = written


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


class OnnxRuntimeBackend(GraphBackend[GraphSet]):
    """A bundle in ONNX Runtime (`pyrf.backends.base.Backend`).

    Args:
        bundle: what to stream.
        codec: the bundle's, loaded.
        dtype, device: float32 on the CPU.
        exported: a folder that `pyrf export` wrote of this bundle; None: export when a size is first used.

    Raises:
        ValueError: when dtype, device or folder do not fit.
    """

    def __init__(
        self,
        bundle: Bundle,
        codec: Codec,
        *,
        dtype: torch.dtype,
        device: torch.device,
        exported: str | Path | None = None,
    ) -> None:
        if device.type != "cpu" or dtype != torch.float32:
            raise ValueError(
                f"the onnxruntime backend computes in float32 on the CPU, got {dtype} on {device}; "
                "for others take the torch backend"
            )
        super().__init__(bundle, codec, dtype="float32", load=_load, exported=exported)
        if self._exported is None:
            self._graphs(bundle.height // codec.spatial_stride, bundle.width // codec.spatial_stride)

    def backend(self, height: int, width: int) -> OnnxRuntimeRollout:
        return OnnxRuntimeRollout(self._graphs(height, width))

    def decoder(self, batch: int, height: int, width: int) -> OnnxDecoder:
        return OnnxDecoder(self._graphs(height, width), self._codec, batch)


def _load(folder: Path) -> GraphSet:
    return GraphSet(folder, load_manifest(folder, check_content=False), torch.get_num_threads())
