"""The plain torch backend."""

from __future__ import annotations

from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize, StreamConfig
from pyrf.models.codecs.codec import Codec, StreamingDecoder
from pyrf.models.dit.merging import MergedWeights
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.packed_linear import pack_linears


class TorchBackend:
    """A model in torch (`pyrf.backends.base.Backend`).

    Args:
        model, codec: loaded, and the backend's own: the model's weights are laid out for the machine.
        stream: how it streams.
        merged: the model's weights with adapters, which a change of their strengths writes anew.
    """

    has_frame_timesteps = True

    def __init__(
        self, model: WanModel, codec: Codec, stream: StreamConfig, merged: MergedWeights | None = None
    ) -> None:
        self.model, self.codec, self.stream, self.merged = model, codec, stream, merged
        pack_linears(model)

    def check_size(self, size: LatentSize) -> None:
        """Every size will do."""

    def is_ready(self, size: LatentSize) -> bool:
        """Every size is."""
        return True

    def prepare(self, size: LatentSize) -> None:
        """Nothing is to be done."""

    def open(self, batch: int, size: LatentSize, prompt_embeds: Tensor) -> TorchRollout:
        return TorchRollout(self.model, self.stream, batch, size, prompt_embeds)

    def decoder(self, batch: int, size: LatentSize) -> StreamingDecoder:
        return self.codec.decoder()
