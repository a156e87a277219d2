"""Reads the golden data of the Wan VAE, and the small network that made them."""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from pyrf.bundle.names import vae_to_diffusers
from pyrf.bundle.weights import load_weights
from pyrf.models.codecs.wan_vae import WanVAE, build_network

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "vae"
TOLERANCE = 1e-5
"""Accepted maximum absolute difference; decoded values reach 2."""


@cache
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "vae_io.safetensors")


def golden_codec(**config: object) -> WanVAE:
    """The network of the golden data, loaded from weights under official names."""
    sizes = json.loads((GOLDEN / "config.json").read_text())
    with torch.device("meta"):
        network = build_network({**sizes, "base_dim": sizes.pop("dim"), **config})
    official = load_file(GOLDEN / "vae_weights.safetensors")
    load_weights(network, {vae_to_diffusers(k): v for k, v in official.items()}, GOLDEN)
    return WanVAE(network)
