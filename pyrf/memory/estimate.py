"""What a stream of a bundle will need, before anything of it is loaded.

Weights, ring and prompt are counted from sizes. Working memory is that of the code itself, run on the meta
device (`pyrf.memory.live`). Not counted are workspaces of libraries and what an allocator cannot use;
docs/memory.md has estimates beside measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle.bundle import Bundle
from pyrf.bundle.weights import unfilled, weight_files
from pyrf.config import LatentSize
from pyrf.dtypes import name_of
from pyrf.machine import rss_bytes
from pyrf.memory.bill import Bill, MemoryRow, total
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


class Estimator:
    """Bills of one bundle for frames of one size; what is counted is kept for the next bill.

    Args:
        bundle: whose configuration is read; of its weights only names and shapes.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._codecs: dict[tuple[torch.dtype, bool, bool], Codec] = {}
        self._decoding: dict[tuple[torch.dtype, bool, bool, bool], tuple[int, int]] = {}
        self._denoising: dict[torch.dtype, int] = {}
        self._encoding: dict[torch.dtype, int] = {}

    def at_most(self, setup: Setup) -> int:
        """More than weights and cache will hold, by sizes of files alone: this takes no time."""
        model, stream, stride = self.bundle.model_config, setup.stream, LATENTS.spatial_stride
        tokens = stream.chunk_frames * self.bundle.height * self.bundle.width // stride**2
        cache = (stream.slots + 1) * slot_numbers(model, tokens) * setup.dtype.itemsize
        # An element of a file may have a byte and become four.
        return 4 * (self._file_bytes(others=True) + self._file_bytes(others=False)) + cache

    def bill(self, setup: Setup) -> Bill:
        """What one stream needs. It takes up to a second to count.

        Raises:
            ValueError: when the codec's or the text encoder's files are damaged, or the size does not fit.
        """
        network, codec, text = self._network(setup), self._codec_weights(setup), self._text(setup)
        stream = self._stream(setup)
        on_cpu = setup.device.type == "cpu"
        held = [network, *self._adapters(setup), codec]
        host: list[MemoryRow] = []
        if setup.text != "freed":
            (held if on_cpu or setup.text == "device" else host).append(text)
        loading = 0
        if on_cpu:
            others = codec.bytes + text.bytes * (setup.text != "freed") + self._file_bytes(others=True)
            loading = max(others, total(held) + self._file_bytes(others=False))
        memory, decoding = self._decode(setup)
        stream.append(MemoryRow("decoder's memory", memory, "frames that its convolutions look back at"))
        encoding = self._encode(setup) + (text.bytes if setup.text == "freed" else 0)
        work = [
            MemoryRow("denoising", self._denoise(setup), "a network call"),
            MemoryRow("decoding", decoding, "a chunk of frames"),
        ]
        if saved := self._saved(setup):
            work.append(
                MemoryRow("rounding weights", saved, "which are loaded in the dtype, before any stream")
            )
        if setup.text_device == setup.device:
            work.append(MemoryRow("encoding a prompt", encoding, f"{self._text_len} tokens"))
        held += stream
        if on_cpu:  # the last, as counting imports parts of torch, too
            process = MemoryRow("process", rss_bytes(), "Python, torch and pyrf, as they are now")
            held.insert(0, process)
            loading += process.bytes
        return Bill(str(setup.device), held, work, host, loading, total(stream))

    def has_large_codec(self, setup: Setup) -> bool:
        """Whether TAEHV could stand in for the codec: it is Wan2.1's VAE."""
        codec = self._codec(setup)
        return not isinstance(codec, TAEHVCodec) and codec.latent_channels == LATENTS.latent_channels

    def decodes_by_frame(self, setup: Setup) -> bool:
        """Whether the codec decodes several latent frames at once, and may decode one."""
        return getattr(self._codec(setup), "latents_at_once", 1) > 1

    @property
    def _text_len(self) -> int:
        return self.bundle.model_config.text_len

    def _size(self, setup: Setup) -> LatentSize:
        return latent_size(self.bundle.height, self.bundle.width, self._codec(setup))

    @cached_property
    def _model(self) -> WanModel:
        with unfilled():
            return WanModel(self.bundle.model_config)

    def _network(self, setup: Setup) -> MemoryRow:
        count, rounded = parameters_of(self._model), self._rounded(setup)
        how = f"{count:,} parameters in {name_of(setup.dtype)}"
        if rounded:
            how += f", {rounded:,} of them in e4m3"
        return MemoryRow("network", count * setup.dtype.itemsize - self._saved(setup), how)

    def _rounded(self, setup: Setup) -> int:
        """Weights that are held in e4m3."""
        if setup.precision != "fp8":
            return 0
        return sum(linear.weight.numel() for block in self._model.blocks for linear in rounded_linears(block))

    def _saved(self, setup: Setup) -> int:
        """Bytes by which e4m3 weights are smaller, once they are rounded: they are loaded in the dtype."""
        return self._rounded(setup) * (setup.dtype.itemsize - E4M3.itemsize)

    def _adapters(self, setup: Setup) -> Iterator[MemoryRow]:
        """The tensors of adapters, and what they change as it was."""
        if not self.bundle.adapters:
            return
        sizes = {name: p.numel() for name, p in self._model.named_parameters()}
        touched = {name for adapter in self.bundle.adapters for name in adapter.changes}
        parts: list[Tensor] = []
        for adapter in self.bundle.adapters:
            for change in (one for changes in adapter.changes.values() for one in changes):
                parts += [change.up, change.down] if isinstance(change, LowRank) else [change.values]
        kept = sum(sizes[name] for name in touched) * setup.dtype.itemsize
        there = kept if setup.adapter_base == "device" or setup.device.type == "cpu" else 0
        how = "their tensors, and the weights that they change as they were"
        yield MemoryRow("adapters", sum(part.nbytes for part in parts) + there, how)

    def _codec(self, setup: Setup) -> Codec:
        """The codec without its values, laid out as for the device."""
        key = (setup.dtype, setup.device.type == "cuda", setup.tiny_codec)
        if key not in self._codecs:
            own = self.bundle.codec
            self._codecs[key] = _taehv(setup.dtype) if key[2] else own(setup.dtype, META, for_gpu=key[1])
        return self._codecs[key]

    def _codec_weights(self, setup: Setup) -> MemoryRow:
        network: nn.Module = self._codec(setup).network  # type: ignore[attr-defined]
        how = f"encoder in float32, decoder in {name_of(setup.dtype)}"
        return MemoryRow("codec", bytes_of(network), how)

    @cached_property
    def _text_config(self) -> UMT5Config:
        return self.bundle.layout.text_config()

    @cached_property
    def _text_count(self) -> int:
        return text_parameters(self._text_config)

    def _text(self, setup: Setup) -> MemoryRow:
        count = self._text_count
        how = f"{count:,} parameters in {name_of(setup.text_dtype)}"
        return MemoryRow("text encoder", count * setup.text_dtype.itemsize, how)

    def _stream(self, setup: Setup) -> list[MemoryRow]:
        """What a stream holds: cache and prompt."""
        model, stream = self.bundle.model_config, setup.stream
        tokens = stream.chunk_frames * self._size(setup).tokens
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
    def _denoise(self, setup: Setup) -> int:
        """Working memory of a network call; one layer stands for all, as they take turns.

        The window makes no difference: attention keeps no scores.
        """
        if setup.dtype not in self._denoising:
            config = replace(self.bundle.model_config, num_layers=1)
            with unfilled():
                model = WanModel(config).to(setup.dtype)
            size = self._size(setup)
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
    def _decode(self, setup: Setup) -> tuple[int, int]:
        """What a decoder keeps from chunk to chunk, and its working memory."""
        key = (setup.dtype, setup.device.type == "cuda", setup.by_frame, setup.tiny_codec)
        if key not in self._decoding:
            codec = self._codec(setup)
            size = self._size(setup)
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
    def _encode(self, setup: Setup) -> int:
        """Working memory of the longest prompt; one layer stands for all."""
        if setup.text_dtype not in self._encoding:
            with unfilled():
                network = UMT5Encoder(replace(self._text_config, num_layers=1)).to(setup.text_dtype)
            ids = torch.empty(1, self._text_len, dtype=torch.int64, device=META)
            keep = torch.empty(1, self._text_len, dtype=torch.bool, device=META)
            self._encoding[setup.text_dtype] = measured(lambda: network(ids, keep))[1]
        return self._encoding[setup.text_dtype]

    def _file_bytes(self, *, others: bool) -> int:
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
