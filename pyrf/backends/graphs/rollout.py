"""What backends that run exported graphs share: the manifest's sizes, and what a call is given.

The graphs' batch is 1, so the videos of a batch are computed one after the other.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from pyrf.backends.cached import CachedRollout
from pyrf.config import LatentSize
from pyrf.dtypes import dtype_of
from pyrf.export.errors import ExportError
from pyrf.export.manifest import Manifest
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.held import Timestep
from pyrf.loop.rope import rope_table
from pyrf.loop.timesteps import PerTimestep
from pyrf.models.dit.model import sinusoid
from pyrf.ops.e4m3 import E4M3
from pyrf.ops.library import locate, write_slot


class GraphVideo(Protocol):
    """The buffers of one video of a batch, and the graphs bound to them."""

    def encode_prompt(self, rows: Tensor) -> None:
        """Put a prompt in force, [text_len, text_dim]."""
        ...

    def denoise(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> Tensor:
        """The flow of latents [F, C, H, W]: a buffer that the next call overwrites."""
        ...

    def clean(self, latents: Tensor, modulation: Tensor, rope: Tensor) -> None:
        """The clean call; inside `SinkRingCache.rewrite` of the past chunk."""
        ...


class GraphRollout(CachedRollout):
    """Computes the calls of one stream with the graphs of an export.

    A subclass binds the graphs for each video, then puts the first prompt in force.

    Args:
        manifest: of the export.
        batch: videos made together.
        size: of the latents.
        device: where the graphs run.

    Raises:
        ExportError: when the export is for another size.
    """

    _videos: Sequence[GraphVideo]

    def __init__(self, manifest: Manifest, batch: int, size: LatentSize, device: torch.device) -> None:
        if size != manifest.size:
            raise ExportError(
                f"this was exported for latents of {manifest.height} x {manifest.width}, "
                f"got {size.height} x {size.width}; export that size"
            )
        dtype = dtype_of(manifest.cache_dtype)
        super().__init__(manifest.model, manifest.stream, batch, size, dtype=dtype, device=device)
        self._size = size
        self._modulations = PerTimestep[float, Tensor]()
        self._rope: tuple[range, Tensor] | None = None

    @abstractmethod
    def _modulate(self, row: Tensor) -> Tensor:
        """Run the graph `time` on a sinusoid [1, 1, freq_dim] of the host."""

    def weights_changed(self) -> None:
        raise RuntimeError("the weights of a graph do not change")

    def _upload(self, x: Tensor) -> Tensor:
        """A tensor of the host on the backend's device."""
        return x

    def _encode_prompt(self, prompt_embeds: Tensor) -> None:
        expected = (self.model_config.text_len, self.model_config.text_dim)
        if prompt_embeds.ndim != 3 or tuple(prompt_embeds.shape[1:]) != expected:
            raise ValueError(
                f"prompt_embeds must be [B, {expected[0]}, {expected[1]}], got {list(prompt_embeds.shape)}"
            )
        for video, rows in zip(self._videos, prompt_embeds.expand(len(self._videos), -1, -1)):
            video.encode_prompt(rows)

    def _modulation(self, timestep: float) -> Tensor:
        """The modulations of a timestep, made once per stream."""
        return self._modulations.get(timestep, self._modulation_of)

    def _modulation_of(self, timestep: float) -> Tensor:
        timesteps = torch.tensor([[timestep]], dtype=torch.float64, device="cpu")
        return self._modulate(sinusoid(timesteps, self.model_config.freq_dim).float())

    def _rope_now(self) -> Tensor:
        """The rotations of the chunk under way, kept for its other calls."""
        positions = self.cache.frame_positions
        if self._rope is None or self._rope[0] != positions:
            self._rope = positions, self._upload(rope_table(self.model_config, positions, self._size))
        return self._rope[1]

    def _predict(self, latents: Tensor, timestep: Timestep) -> Tensor:
        if isinstance(timestep, tuple):
            raise ValueError(
                "an exported graph has one timestep for all frames of a chunk, so it cannot hold a first "
                'frame; begin with start="still", or use the backend torch'
            )
        modulation, rope = self._modulation(timestep), self._rope_now()
        flows = [video.denoise(x, modulation, rope) for video, x in zip(self._videos, latents)]
        return torch.stack(flows)

    def _write(self, latents: Tensor) -> None:
        modulation, rope = self._modulation(0.0), self._rope_now()
        for video, x in zip(self._videos, latents):
            video.clean(x, modulation, rope)


def cache_buffers(cache: SinkRingCache, index: int) -> dict[str, Tensor]:
    """One video's part of the cache, by the names of the graphs' inputs."""
    return {
        f"{name}.{layer}": buffer[index : index + 1]
        for name, buffers in (("keys", cache.keys), ("values", cache.values))
        for layer, buffer in enumerate(buffers)
    }


class Bound(Protocol):
    """A graph bound to buffers."""

    def __getitem__(self, name: str) -> Tensor: ...


def keep_entries(cache: SinkRingCache, buffers: Mapping[str, Tensor], clean: Bound) -> None:
    """Write the entries of a clean call into the current slot, where its graph has not done so itself.

    Args:
        buffers: from `cache_buffers`.
        clean: has run.
    """
    for name, buffer in buffers.items():
        entries = clean[name.replace(".", "_out.")]
        if entries.dtype == E4M3:
            write_slot(buffer, locate(cache.slot, cache.tokens, buffer.shape[2]), entries)


BoundGraph = TypeVar("BoundGraph", bound=Bound)


def decoder_turns(
    manifest: Manifest, bind: Callable[[str, Mapping[str, Tensor]], BoundGraph]
) -> Iterator[BoundGraph]:
    """A decoder's graph for each chunk: the first chunk's, then two in turns.

    The decoder's memory goes back and forth between two sets of buffers.

    Args:
        bind: binds a graph, by its name, to buffers; what is missing is allocated.
    """
    first = bind("decoder_first", {})
    memory = {
        spec.name.replace("_out", ""): first[spec.name]
        for spec in manifest.graphs["decoder_first"].outputs
        if spec.name.startswith("memory_out.")
    }
    there = bind("decoder_next", memory)
    turned = {name: there[name.replace(".", "_out.")] for name in memory}
    back = {name.replace(".", "_out."): buffer for name, buffer in memory.items()}
    return itertools.chain((first,), itertools.cycle((there, bind("decoder_next", turned | back))))
