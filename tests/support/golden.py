"""Reads the golden data of configuration A: official outputs for seeded random weights."""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.dit.model import WanModel

FOLDER = Path(__file__).parents[1] / "data" / "golden" / "A"
TOLERANCE = 3e-5
"""Accepted maximum absolute difference in float32; the rounding floor is 3e-6."""


@cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    """All tensors of a golden file."""
    return load_file(FOLDER / f"{name}.safetensors")


def configs() -> tuple[ModelConfig, StreamConfig]:
    """The network and the stream that made the data."""
    c = json.loads((FOLDER / "config.json").read_text())["config"]
    keys = ("dim", "ffn_dim", "num_heads", "num_layers", "text_len", "text_dim")
    return ModelConfig(**{key: c[key] for key in keys}), StreamConfig(sink_alpha=c["alpha"])


def model(dtype: torch.dtype = torch.float32) -> WanModel:
    """The golden network, weights loaded strictly under their official names."""
    network = WanModel(configs()[0])
    network.load_state_dict(tensors("weights"))
    return network.to(dtype).eval().requires_grad_(False)
