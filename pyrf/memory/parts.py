"""The parts of a bundle in bytes: what the bills of all backends are made of.

Weights, ring and prompt are counted from sizes. Working memory is that of the code itself, run on the meta
device (`pyrf.memory.live`). Not counted are workspaces of libraries and what an allocator cannot use;
docs/memory.md has estimates beside measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle.bundle import Bundle
from pyrf.bundle.weights import unfilled, weight_files
from pyrf.config import LatentSize
from pyrf.dtypes import name_of
from pyrf.memory.bill import MemoryRow
from pyrf.memory.counts import parameters_of, slot_numbers, text_parameters
from pyrf.memory.live import measured
from pyrf.memory.setup import Setup
from pyrf.models.codecs.codec import Codec, latent_size
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec
from pyrf.models.dit.adapter import LowRank
from pyrf.models.dit.fp8_linear import rounded_linears
from pyrf.models.dit.model import WanModel
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder
from pyrf.models.wan21 import LATENTS
from pyrf.ops.e4m3 import E4M3
from pyrf.ops.ema_sink_update import MASTER_DTYPES

META = "meta"


def bytes_of(module: nn.Module) -> int:
    """Of a module's parameters and buffers."""
    return sum(x.nbytes for x in (*module.parameters(), *module.buffers()))


@dataclass(frozen=True)
class BackendRows:
    """What a backend holds and works with, beside what all have.

    Attributes:
        weights: held by the model, whatever the number of its streams.
        stream: held by each stream.
        work: of what takes turns.
        mapped: bytes of files that are resident at most while a CPU loads the weights; None: that is when a
            stream begins.
    """

    weights: list[MemoryRow]
    stream: list[MemoryRow]
    work: list[MemoryRow]
    mapped: int | None = None


class Parts:
    """What one bundle holds for frames of one size; what is counted is kept for the next bill.

    Args:
        bundle: whose configuration is read; of its weights only names and shapes.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._codecs: dict[tuple[torch.dtype, bool, bool], Codec] = {}
        self._decoding: dict[tuple[torch.dtype, bool, bool, bool], tuple[int, int]] = {}
        self._denoising: dict[torch.dtype, int] = {}
        self._encoding: dict[torch.dtype, int] = {}

    def has_large_codec(self, setup: Setup) -> bool:
        """Whether TAEHV could stand in for the codec: it is Wan2.1's VAE, and no graph of it is exported."""
        codec = self.codec(setup)
        if setup.backend != "torch":
            return False
        return not isinstance(codec, TAEHVCodec) and codec.latent_channels == LATENTS.latent_channels

    def decodes_by_frame(self, setup: Setup) -> bool:
        """Whether the codec decodes several latent frames at once, and may decode one."""
        return setup.backend == "torch" and getattr(self.codec(setup), "latents_at_once", 1) > 1

    @property
    def text_len(self) -> int:
        return self.bundle.model_config.text_len

    def size(self, setup: Setup) -> LatentSize:
        return latent_size(self.bundle.height, self.bundle.width, self.codec(setup))

    @cached_property
    def model(self) -> WanModel:
        with unfilled():
            return WanModel(self.bundle.model_config)

    def network(self, setup: Setup) -> MemoryRow:
        count, rounded = parameters_of(self.model), self.rounded(setup)
        how = f"{count:,} parameters in {name_of(setup.dtype)}"
        if rounded:
            how += f", {rounded:,} of them in e4m3"
        return MemoryRow("network", count * setup.dtype.itemsize - self.saved(setup), how)

    def rounded(self, setup: Setup) -> int:
        """Weights that are held in e4m3."""
        if setup.precision != "fp8":
            return 0
        return sum(linear.weight.numel() for block in self.model.blocks for linear in rounded_linears(block))

    def saved(self, setup: Setup) -> int:
        """Bytes by which e4m3 weights are smaller, once they are rounded: they are loaded in the dtype."""
        return self.rounded(setup) * (setup.dtype.itemsize - E4M3.itemsize)

    def adapters(self, setup: Setup) -> Iterator[MemoryRow]:
        """The tensors of adapters, and what they change as it was."""
        if not self.bundle.adapters:
            return
        sizes = {name: p.numel() for name, p in self.model.named_parameters()}
        touched = {name for adapter in self.bundle.adapters for name in adapter.changes}
        parts: list[Tensor] = []
        for adapter in self.bundle.adapters:
            for change in (one for changes in adapter.changes.values() for one in changes):
                parts += [change.up, change.down] if isinstance(change, LowRank) else [change.values]
        kept = sum(sizes[name] for name in touched) * setup.dtype.itemsize
        if setup.backend != "torch":
            kept = 0  # graphs are exported with them
        there = kept if setup.adapter_base == "device" or setup.device.type == "cpu" else 0
        how = "their tensors, and the weights that they change as they were"
        yield MemoryRow("adapters", sum(part.nbytes for part in parts) + there, how)

    def codec(self, setup: Setup) -> Codec:
        """The codec without its values, laid out as for the device."""
        key = (setup.dtype, setup.device.type == "cuda", setup.tiny_codec)
        if key not in self._codecs:
            own = self.bundle.codec
            self._codecs[key] = _taehv(setup.dtype) if key[2] else own(setup.dtype, META, for_gpu=key[1])
        return self._codecs[key]

    def codec_weights(self, setup: Setup) -> MemoryRow:
        network: nn.Module = self.codec(setup).network  # type: ignore[attr-defined]
        how = f"encoder in float32, decoder in {name_of(setup.dtype)}"
        return MemoryRow("codec", bytes_of(network), how)

    @cached_property
    def _text_config(self) -> UMT5Config:
        return self.bundle.layout.text_config()

    @cached_property
    def _text_count(self) -> int:
        return text_parameters(self._text_config)

    def text(self, setup: Setup) -> MemoryRow:
        count = self._text_count
        how = f"{count:,} parameters in {name_of(setup.text_dtype)}"
        return MemoryRow("text encoder", count * setup.text_dtype.itemsize, how)

    def stream(self, setup: Setup) -> list[MemoryRow]:
        """What a stream holds: cache and prompt."""
        model, stream = self.bundle.model_config, setup.stream
        tokens = stream.chunk_frames * self.size(setup).tokens
        element = setup.dtype.itemsize
        slot = slot_numbers(model, tokens)
        ring = slot * stream.slots * setup.ring_dtype.itemsize
        how = f"{stream.slots} slots of {tokens:,} tokens in {model.num_layers} layers"
        rows = [MemoryRow("ring", ring, how)]
        if stream.sink_frames and setup.ring_dtype in MASTER_DTYPES:
            master = slot * MASTER_DTYPES[setup.ring_dtype].itemsize
            rows.append(MemoryRow("sink's hidden bits", master, "what a sink of 16 bits would round away"))
        prompt = 2 * model.num_layers * model.text_len * model.dim + model.text_len * model.text_dim
        times = (len(stream.denoising_steps) + 1) * (6 * model.num_layers + 8) * model.dim
        how = f"keys and values of {model.text_len} rows, and the embedded timesteps"
        return [*rows, MemoryRow("prompt", (prompt + times) * element, how)]

    @torch.inference_mode()
    def denoise(self, setup: Setup) -> int:
        """Working memory of a network call; one layer stands for all, as they take turns.

        The window makes no difference: attention keeps no scores.
        """
        if setup.dtype not in self._denoising:
            config = replace(self.bundle.model_config, num_layers=1)
            with unfilled():
                model = WanModel(config).to(setup.dtype)
            size = self.size(setup)
            rows = torch.empty(1, config.text_len, config.text_dim, dtype=setup.dtype, device=META)
            shape = (1, setup.stream.chunk_frames, config.in_channels, *size)
            rollout = TorchRollout(model, setup.stream, 1, size, rows)

            def call() -> None:
                rollout.begin_chunk()
                latents = torch.empty(shape, dtype=torch.float32, device=META)
                rollout.denoise(latents, 1000.0)
                rollout.clean(latents)

            self._denoising[setup.dtype] = measured(call)[1]
        return self._denoising[setup.dtype]

    @torch.no_grad()
    def decode(self, setup: Setup) -> tuple[int, int]:
        """What a decoder keeps from chunk to chunk, and its working memory."""
        key = (setup.dtype, setup.device.type == "cuda", setup.by_frame, setup.tiny_codec)
        if key not in self._decoding:
            codec = self.codec(setup)
            size = self.size(setup)
            at_once = decode_by_frame(codec) if setup.by_frame else None
            decoder = codec.decoder()
            shape = (1, setup.stream.chunk_frames, codec.latent_channels, *size)
            self._decoding[key] = measured(
                lambda: decoder.decode(torch.empty(shape, dtype=torch.float32, device=META))
            )
            if at_once is not None:
                codec.latents_at_once = at_once  # type: ignore[attr-defined]
        return self._decoding[key]

    @torch.no_grad()
    def encode(self, setup: Setup) -> int:
        """Working memory of the longest prompt; one layer stands for all."""
        if setup.text_dtype not in self._encoding:
            with unfilled():
                network = UMT5Encoder(replace(self._text_config, num_layers=1)).to(setup.text_dtype)
            ids = torch.empty(1, self.text_len, dtype=torch.int64, device=META)
            keep = torch.empty(1, self.text_len, dtype=torch.bool, device=META)
            self._encoding[setup.text_dtype] = measured(lambda: network(ids, keep))[1]
        return self._encoding[setup.text_dtype]

    def file_bytes(self, *, others: bool) -> int:
        """Of the files of the transformer's weights, or of those of the other parts."""
        bundle = self.bundle
        if others:
            files = bundle.layout.files(dit_weights=False)
        else:
            files = weight_files(bundle.student or bundle.layout.dit_path())
        return sum(file.stat().st_size for file in files if not _is_small(file))


def _taehv(dtype: torch.dtype) -> Codec:
    """TAEHV without its values."""
    with unfilled():
        network = TAEHV()
    network.decoder.to(dtype)
    return TAEHVCodec(network)


def _is_small(file: Path) -> bool:
    return file.suffix == ".json"


def decode_by_frame(codec: Codec) -> int | None:
    """Let a codec decode one latent frame at a time; return how many it decoded before, if it can do so."""
    before: int | None = getattr(codec, "latents_at_once", None)
    if before is not None:
        codec.latents_at_once = 1  # type: ignore[attr-defined]
    return before
