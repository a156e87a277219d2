"""The ONNX Runtime backend: exported graphs on a CPU, driven by the same loop as torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pyrf.backends.base import StreamBackend
from pyrf.backends.graphs import Binding, GraphSet
from pyrf.bundle import Bundle
from pyrf.cache import SinkRingCache
from pyrf.export.manifest import ExportError, load_manifest
from pyrf.export.store import check_export, stored_export
from pyrf.models.attention import rope_table
from pyrf.models.codec import Codec, check_latents
from pyrf.models.dit import sinusoid


class OnnxRuntimeBackend(StreamBackend):
    """Computes the calls of one stream, a video at a time: the graphs' batch is 1.

    Args:
        graphs: the export.
    """

    def __init__(self, graphs: GraphSet) -> None:
        super().__init__(graphs.manifest.model, graphs.manifest.stream)
        self.graphs = graphs
        self._videos: list[_Video] = []
        self._modulations: dict[float, Tensor] = {}
        self._rope: tuple[Sequence[int], Tensor] | None = None

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.graphs.manifest.dtype)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def start(self, batch: int, height: int, width: int) -> None:
        manifest = self.graphs.manifest
        if (height, width) != (manifest.height, manifest.width):
            raise ExportError(
                f"{self.graphs.folder} was exported for latents of {manifest.height} x {manifest.width}, "
                f"got {height} x {width}; export that size"
            )
        super().start(batch, height, width)

    def close(self) -> None:
        super().close()
        self._videos = []
        self._modulations = {}
        self._rope = None

    def _begin(self, cache: SinkRingCache) -> None:
        self._videos = [_Video(self.graphs, cache, i) for i in range(self._shape[0])]

    def _encode_prompt(self, prompt_embeds: Tensor) -> None:
        expected = (self.model_config.text_len, self.model_config.text_dim)
        if prompt_embeds.ndim != 3 or tuple(prompt_embeds.shape[1:]) != expected:
            raise ValueError(
                f"prompt_embeds must be [B, {expected[0]}, {expected[1]}], got {list(prompt_embeds.shape)}"
            )
        for video, rows in zip(self._videos, prompt_embeds.expand(len(self._videos), -1, -1)):
            video.encode_prompt(rows)

    def _modulation(self, timestep: float) -> Tensor:
        """The modulations of a timestep, made once a stream."""
        if timestep not in self._modulations:
            time = Binding(self.graphs["time"], {})
            row = sinusoid(torch.tensor([[timestep]], dtype=torch.float64), self.model_config.freq_dim)
            time["sinusoid"].copy_(row)
            time.run()
            self._modulations[timestep] = time["modulation"]
        return self._modulations[timestep]

    def _rope_of(self, positions: Sequence[int]) -> Tensor:
        """The rotations of a chunk, kept for its other calls."""
        if self._rope is None or self._rope[0] != positions:
            manifest = self.graphs.manifest
            table = rope_table(
                positions,
                manifest.height // 2,
                manifest.width // 2,
                self.model_config.head_dim,
                self.model_config.rope_theta,
            )
            self._rope = positions, table
        return self._rope[1]

    def _predict(self, latents: Tensor, timestep: float, positions: Sequence[int]) -> Tensor:
        modulation, rope = self._modulation(timestep), self._rope_of(positions)
        flows = []
        for video, x in zip(self._videos, latents):
            video.set_call(x, modulation, rope)
            flows.append(video.denoise())
        return torch.stack(flows)

    def _write(self, latents: Tensor, positions: Sequence[int]) -> None:
        modulation, rope = self._modulation(0.0), self._rope_of(positions)
        for video, x in zip(self._videos, latents):
            video.set_call(x, modulation, rope)
            video.clean()


class _Video:
    """The buffers of one video of a batch, and the graphs bound to them."""

    def __init__(self, graphs: GraphSet, cache: SinkRingCache, index: int) -> None:
        self.graphs, self.cache = graphs, cache
        self._kv = {
            f"{name}.{layer}": buffer[index : index + 1]
            for name, buffers in (("keys", cache.keys), ("values", cache.values))
            for layer, buffer in enumerate(buffers)
        }
        self._prompt = Binding(graphs["prompt"], {})
        specs = graphs.manifest.graphs["denoise"].inputs
        self._inputs = {
            spec.name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
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

    def set_call(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> None:
        """Fill in what the next call takes, but for the place in the cache."""
        for name, x in (("latents", latents), ("modulation", modulation), ("rope", rope)):
            self._inputs[name].copy_(x)

    def _set_place(self, slot: int, length: int) -> None:
        self._inputs["position"].fill_(slot * self.cache.tokens)
        self._inputs["length"].fill_(length)

    def denoise(self) -> Tensor:
        """The flow, [F, C, H, W]."""
        self._set_place(int(self.cache.slot), self.cache.length)
        self._denoise.run()
        return self._denoise["flow"][0]

    def clean(self) -> None:
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
    """The decoder of one video; its memory goes back and forth between two sets of buffers."""

    def __init__(self, graphs: GraphSet) -> None:
        self._graphs = graphs
        first = Binding(graphs["decoder_first"], {})
        memory = {
            spec.name.replace("_out", ""): first[spec.name]
            for spec in graphs.manifest.graphs["decoder_first"].outputs
            if spec.name.startswith("memory_out.")
        }
        there = Binding(graphs["decoder_next"], memory)
        turned = {name: there[name.replace(".", "_out.")] for name in memory}
        back = {name.replace(".", "_out."): buffer for name, buffer in memory.items()}
        self._turns = [there, Binding(graphs["decoder_next"], turned | back)]
        self._next: Binding = first
        self._count = 0

    def decode(self, latents: Tensor) -> Tensor:
        """A chunk [F, C, h, w] to its frames [T, H, W, 3]."""
        self._next["latents"].copy_(latents[None])
        self._next.run()
        frames = self._next["frames"][0].clone()
        self._next = self._turns[self._count % 2]
        self._count += 1
        return frames


class OnnxRuntimeEngine:
    """A bundle in ONNX Runtime (`pyrf.backends.base.Engine`).

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
        self._bundle, self._codec = bundle, codec
        self._exported = None if exported is None else Path(exported)
        self._sizes: dict[tuple[int, int], GraphSet] = {}
        self._lock = threading.Lock()  # streams in other threads may ask for the same size
        stride = codec.spatial_stride
        if self._exported is None:
            self._graphs(bundle.height // stride, bundle.width // stride)
        else:
            check_export(self._exported, bundle, dtype="float32")

    def _graphs(self, height: int, width: int) -> GraphSet:
        with self._lock:
            if (height, width) not in self._sizes:
                stride = self._codec.spatial_stride
                folder = self._exported or stored_export(
                    self._bundle, dtype="float32", height=height * stride, width=width * stride
                )
                graphs = GraphSet(folder, load_manifest(folder, check_content=False), torch.get_num_threads())
                self._sizes[height, width] = graphs
            return self._sizes[height, width]

    def backend(self, height: int, width: int) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(self._graphs(height, width))

    def decoder(self, batch: int, height: int, width: int) -> OnnxDecoder:
        return OnnxDecoder(self._graphs(height, width), self._codec, batch)
