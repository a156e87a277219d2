"""The plain torch backend."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle.bundle import Bundle
from pyrf.config import LatentSize, StreamConfig
from pyrf.models.codecs.codec import Codec, StreamingDecoder
from pyrf.models.dit.fp8_linear import quantise_linears
from pyrf.models.dit.merging import MergedWeights
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.packed_linear import pack_linears
from pyrf.ops.e4m3 import E4M3


def cache_dtype_of(precision: str | None) -> torch.dtype | None:
    """The dtype of keys and values under a precision; None: the model's."""
    return None if precision is None else E4M3


def load_network(
    bundle: Bundle, *, dtype: torch.dtype, device: torch.device, adapter_base: str, precision: str | None
) -> tuple[WanModel, MergedWeights | None]:
    """A bundle's student, and what changes the strengths of its adapters, where it has any.

    Args:
        adapter_base, precision: see `ADAPTER_BASES` and `PRECISIONS` in `pyrf.backends.choice`.
    """
    model = bundle.base_transformer(dtype=dtype, device=device)
    merged = None
    if bundle.adapters:
        merged = MergedWeights(model, bundle.adapters, keep_on=device if adapter_base == "device" else "cpu")
    if precision == "fp8":
        quantise_linears(model)
    return model, merged


class TorchBackend:
    """A model in torch (`pyrf.backends.base.Backend`).

    Args:
        model, codec: loaded, and the backend's own: the model's weights are laid out for the machine.
        stream: how it streams.
        merged: the model's weights with adapters, which a change of their strengths writes anew.
        cache_dtype: of keys and values; None: the model's.
    """

    has_frame_timesteps = True

    def __init__(
        self,
        model: WanModel,
        codec: Codec,
        stream: StreamConfig,
        merged: MergedWeights | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.codec, self.stream, self.merged = model, codec, stream, merged
        self.cache_dtype = cache_dtype
        pack_linears(model)

    def check_size(self, size: LatentSize) -> None:
        """Every size will do."""

    def is_ready(self, size: LatentSize) -> bool:
        """Every size is."""
        return True

    def prepare(self, size: LatentSize) -> None:
        """Nothing is to be done."""

    def open(self, batch: int, size: LatentSize, prompt_embeds: Tensor) -> TorchRollout:
        return TorchRollout(self.model, self.stream, batch, size, prompt_embeds, self.cache_dtype)

    def decoder(self, batch: int, size: LatentSize) -> StreamingDecoder:
        return self.codec.decoder()
