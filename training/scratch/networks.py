"""The networks that the later stages train, and the files they pass on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrf.config import ModelConfig
from pyrf.files import whole_file
from pyrf.models.dit.model import PromptCache, WanModel
from pyrf.settings import Settings
from pyrf.training.scratch.text import small_text_encoder
from pyrf.training.stages.networks import TextToVideo

NETWORK, SETTINGS = "network.safetensors", "network.json"


class NetworkSettings(Settings):
    """Sizes of a small text-to-video network, see `pyrf.config.ModelConfig`."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_channels: int = 16
    out_channels: int = 16
    text_len: int = 24
    text_dim: int = 128
    rope_theta: float = 100.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.config
        return self

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(**self.model_dump())


class ScratchTextToVideo(TextToVideo):
    """Text encoder and DiT, trained together.

    Args:
        vocabulary: every word that the text encoder knows.
    """

    def __init__(self, settings: NetworkSettings, vocabulary: Sequence[str]) -> None:
        super().__init__()
        self.settings = settings
        self.text = small_text_encoder(vocabulary, settings.text_dim, settings.text_len)
        self.text_network = self.text.network  # a module's parameters are those of its modules
        self.dit = WanModel(settings.config)

    def prompt(self, captions: list[str]) -> PromptCache:
        return self.dit.encode_prompt(self.text.embed(captions))

    def encode(self, captions: list[str]) -> Tensor:
        return self.text.encode(captions)

    def save(self, folder: Path) -> None:
        """Write weights and settings, each whole or not at all."""
        with whole_file(folder / SETTINGS) as temporary:
            temporary.write_text(self.settings.model_dump_json(indent=2))
        state: dict[str, Tensor] = {k: v.contiguous().clone() for k, v in self.state_dict().items()}
        with whole_file(folder / NETWORK) as temporary:
            save_file(state, temporary)


def load_network(folder: Path, vocabulary: Sequence[str]) -> ScratchTextToVideo:
    """The network that a stage saved to `folder`, and its text encoder's vocabulary.

    Raises:
        FileNotFoundError: naming the stage that was not run.
    """
    if not (folder / NETWORK).exists():
        raise FileNotFoundError(f"{folder} holds no {NETWORK}; run the stage that makes it first")
    settings = NetworkSettings(**json.loads((folder / SETTINGS).read_text()))
    network = ScratchTextToVideo(settings, vocabulary)
    network.load_state_dict(load_file(folder / NETWORK))
    return network
