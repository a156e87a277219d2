"""What all models of Wan2.1 share, free of torch: the frames they were trained on, and their latents."""

from __future__ import annotations

from typing import NamedTuple

from pyrf.config import ModelConfig

MODELS = {
    "Wan2.1-T2V-1.3B": ModelConfig(),
    "Wan2.1-T2V-14B": ModelConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40),
}

FPS = 16.0
"""Frames per second."""

HEIGHT, WIDTH = 480, 832
"""Pixels of a frame."""


class LatentGeometry(NamedTuple):
    """What a latent frame stands for; a `pyrf.models.codecs.codec.Codec` has the same attributes."""

    latent_channels: int
    spatial_stride: int
    temporal_stride: int


LATENTS = LatentGeometry(latent_channels=16, spatial_stride=8, temporal_stride=4)
"""Of the VAE, and of the tiny codec that stands in for it."""
