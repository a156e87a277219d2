"""How many numbers the parts of a model are: what bills of streams and of trainings share."""

from __future__ import annotations

from torch import nn

from pyrf.bundle.weights import unfilled
from pyrf.config import ModelConfig
from pyrf.models.text.umt5 import UMT5Config, UMT5Encoder


def parameters_of(module: nn.Module) -> int:
    """Of all its parameters."""
    return sum(p.numel() for p in module.parameters())


def text_parameters(config: UMT5Config) -> int:
    """Of a text encoder."""
    with unfilled():
        return parameters_of(UMT5Encoder(config))


def slot_numbers(model: ModelConfig, tokens: int) -> int:
    """Of a slot of the cache: keys and values of a chunk's tokens in all layers."""
    return 2 * model.num_layers * tokens * model.dim
