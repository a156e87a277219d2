"""The backend of streams on several ranks: it computes nothing itself, and gives the ranks orders."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from pyrf.backends.base import Rollout
from pyrf.backends.torch.parallel.bands import Bands
from pyrf.backends.torch.parallel.ranks import Ranks, RanksOfStreams
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.held import Timestep
from pyrf.models.codecs.codec import Codec, StreamingDecoder
from pyrf.models.dit.adapter import Adapter


class SplitBackend:
    """A model on several ranks (`pyrf.backends.base.Backend`).

    Args:
        start: starts ranks, or joins those that are there.
        ranks: how many.
        model, stream: sizes of the student, and how it streams.
        codec: decodes where no rank does.
        adapters: of the student.
        decodes: whether a rank decodes.

    Attributes:
        merged: what changes the strengths of adapters; None: there are none.
    """

    has_frame_timesteps = True

    def __init__(
        self,
        start: Callable[[], Ranks],
        ranks: int,
        model: ModelConfig,
        stream: StreamConfig,
        codec: Codec,
        *,
        adapters: Sequence[Adapter] = (),
        decodes: bool = False,
    ) -> None:
        self.model, self.stream, self.codec, self.ranks = model, stream, codec, ranks
        self._decodes = decodes
        weights = RankWeights(adapters)
        self.merged = weights if adapters else None
        self._living = weights.ranks = RanksOfStreams(start, weights.restore)
        weakref.finalize(self, self._living.close)

    def check_size(self, size: LatentSize) -> None:
        """Refuse frames that cannot be cut into a band for each rank."""
        Bands.of(size, self.ranks)

    def is_ready(self, size: LatentSize) -> bool:
        """Every size is."""
        return True

    def prepare(self, size: LatentSize) -> None:
        """Nothing is to be done."""

    def open(self, batch: int, size: LatentSize, prompt_embeds: Tensor) -> LedRollout:
        return LedRollout(self._living.get(), self.model, self.stream, batch, size, prompt_embeds)

    def decoder(self, batch: int, size: LatentSize) -> StreamingDecoder:
        return RankDecoder(self._living.get()) if self._decodes else self.codec.decoder()


class LedRollout(Rollout):
    """Has the ranks compute the calls of one stream.

    Args:
        ranks: that do.
        model, stream, batch, size: see `Rollout`.
        prompt_embeds: [B, text_len, text_dim], or [1, ...] for all videos.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: ModelConfig,
        stream: StreamConfig,
        batch: int,
        size: LatentSize,
        prompt_embeds: Tensor,
    ) -> None:
        super().__init__(model, stream, batch, size, ranks.device)
        self._ranks, self._stream = ranks, ranks.new_stream(self)
        self._check_prompt(prompt_embeds)
        self._do("open", batch, size, x=prompt_embeds)

    def _do(self, verb: str, *args: object, x: Tensor | None = None) -> Tensor | None:
        return self._ranks.carry_out(verb, self._stream, *args, x=x)

    def set_prompt(self, prompt_embeds: Tensor, recache: bool = False) -> None:
        self._check_prompt(prompt_embeds)
        self._do("set_prompt", recache, x=prompt_embeds)

    def begin_chunk(self) -> None:
        self._do("begin_chunk")

    def denoise(self, latents: Tensor, timestep: Timestep) -> Tensor:
        self._check_latents(latents)
        flow = self._do("denoise", timestep, x=latents)
        assert flow is not None
        return flow

    def clean(self, latents: Tensor) -> None:
        self._check_latents(latents)
        self._do("clean", x=latents)

    def reopen_chunk(self) -> None:
        self._do("reopen_chunk")

    def weights_changed(self) -> None:
        self._do("weights_changed")


class RankDecoder:
    """A decoder on one of the ranks (`pyrf.backends.base.OverlappedDecoder`)."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks, self._stream = ranks, ranks.new_stream(self)

    def decode(self, latents: Tensor) -> Tensor:
        return self.begin(latents).result()

    def begin(self, latents: Tensor) -> Future[Tensor]:
        return self._ranks.decode(self._stream, latents)


class RankWeights:
    """The network's weights on all ranks, and the adapters merged into them
    (`pyrf.streaming.adapters.Weights`).

    Attributes:
        strengths: of the adapters by name, as they are merged now.
        ranks: that have the weights.
    """

    ranks: RanksOfStreams

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        self.strengths = {adapter.name: 0.0 for adapter in adapters}

    def restore(self, ranks: Ranks) -> None:
        """Give ranks that have just been started, with the base's weights, those of the others."""
        if any(self.strengths.values()):
            ranks.carry_out("merge", 0, self.strengths)

    def merge(self, strengths: Mapping[str, float]) -> None:
        """See `pyrf.models.dit.merging.MergedWeights.merge`."""
        new = {**self.strengths, **strengths}
        self.ranks.get().carry_out("merge", 0, new)
        self.strengths = new


def check_devices(device: torch.device, ranks: int) -> None:
    """Refuse more ranks than there are GPUs from the given one on; a CPU is shared.

    Raises:
        ValueError: how many there are.
    """
    if device.type != "cuda":
        return
    first, count = device.index or 0, torch.cuda.device_count()
    if first + ranks > count:
        raise ValueError(f"{ranks} ranks from {device} on need as many GPUs, and this machine has {count}")
