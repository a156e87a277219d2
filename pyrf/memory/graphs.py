"""What exported graphs hold, counted without exporting: each graph has its weights and buffers to itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.memory.bill import MemoryRow
from pyrf.memory.counts import slot_numbers
from pyrf.memory.live import storages
from pyrf.memory.parts import META, Parts
from pyrf.memory.setup import Setup


class _Touched(TorchDispatchMode):
    """Notes which storages are given to ops."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.storages.update(storage._cdata for storage in storages((args, kwargs or {})))
        return func(*args, **(kwargs or {}))


def weights_used(network: nn.Module, call: Callable[[], object]) -> int:
    """Bytes of a network's weights that a call computes with, all on the meta device."""
    with _Touched() as touched:
        call()
    return sum(p.nbytes for p in network.parameters() if p.untyped_storage()._cdata in touched.storages)


@torch.inference_mode()
def student_weights(parts: Parts, setup: Setup) -> dict[str, int]:
    """Bytes of the weights of each graph in `pyrf.export.manifest.STUDENT`: what its call uses."""
    model, config, size = parts.model, parts.model.config, parts.size(setup)
    rows = torch.empty(1, config.text_len, config.text_dim, dtype=torch.float32, device=META)
    latents = torch.empty(
        1, setup.stream.chunk_frames, config.in_channels, *size, dtype=torch.float32, device=META
    )
    rollout = TorchRollout(model, setup.stream, 1, size, rows)
    used = {
        "prompt": weights_used(model, lambda: rollout.set_prompt(rows)),
        "time": weights_used(model, lambda: (rollout.time(0.0), rollout.time(1000.0))),
    }
    rollout.begin_chunk()
    used["denoise"] = weights_used(model, lambda: rollout.denoise(latents, 1000.0))
    used["clean"] = weights_used(model, lambda: rollout.clean(latents))
    return {name: used_bytes // 4 * setup.dtype.itemsize for name, used_bytes in used.items()}


@torch.no_grad()
def decoder_weights(parts: Parts, setup: Setup) -> int:
    """Bytes of the weights of a decoder's graph."""
    codec = parts.codec(setup)
    size, frames = parts.size(setup), setup.stream.chunk_frames
    latents = torch.empty(1, frames, codec.latent_channels, *size, dtype=torch.float32, device=META)
    network: nn.Module = codec.network  # type: ignore[attr-defined]
    return weights_used(network, lambda: codec.decoder().decode(latents))


def layer_keys(parts: Parts, setup: Setup) -> int:
    """Bytes of the keys of one layer of the cache, or of its values, in the dtype of the network."""
    tokens = setup.stream.slots * setup.stream.chunk_frames * parts.size(setup).tokens
    return tokens * parts.bundle.model_config.dim * setup.dtype.itemsize


def graph_buffers(parts: Parts, setup: Setup) -> list[MemoryRow]:
    """What a stream's bound graphs read and write, beside cache and prompt.

    The decoder's first step and its two turns have buffers of their own, and two of these its memory.
    """
    codec, size, frames = parts.codec(setup), parts.size(setup), setup.stream.chunk_frames
    config = parts.bundle.model_config
    pixels = frames * codec.temporal_stride * 3 * parts.bundle.height * parts.bundle.width
    latents = 4 * frames * config.in_channels * size.height * size.width
    rope = 4 * frames * size.tokens * config.head_dim
    memory, _ = parts.decode(setup)
    rows = []
    if setup.precision is not None:
        entries = slot_numbers(config, frames * size.tokens) * setup.ring_dtype.itemsize
        rows = [MemoryRow("entries", entries, "keys and values of a chunk, on their way into the ring")]
    return [
        *rows,
        MemoryRow("decoder's memory", 2 * memory, "two sets, of which one is read and one written"),
        MemoryRow("buffers", 3 * (pixels + latents) + 2 * latents + rope, "frames, latents and rotations"),
    ]
