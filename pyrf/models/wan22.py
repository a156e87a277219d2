"""What models of Wan2.2 share, free of torch, where they are not as Wan2.1's (see `pyrf.models.wan21`)."""

from __future__ import annotations

from pyrf.config import ModelConfig
from pyrf.models import wan21
from pyrf.models.wan21 import LatentGeometry

TI2V_5B = "Wan2.2-TI2V-5B"
MODELS = {
    TI2V_5B: ModelConfig(
        dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_channels=48, out_channels=48
    )
}
"""Those of one transformer. A14B has two experts, which take turns by the noise level, and is refused."""

FPS = 24.0
"""Frames per second."""

HEIGHT, WIDTH = 704, 1280
"""Pixels of a frame."""

LATENTS = LatentGeometry(latent_channels=48, spatial_stride=16, temporal_stride=4)
"""Of the VAE: 8 x 8 of patches of 2 x 2 pixels."""


def geometry_of(latent_channels: int) -> LatentGeometry:
    """What a latent frame of so many channels stands for: Wan2.2's VAE has 48, Wan2.1's 16."""
    return LATENTS if latent_channels == LATENTS.latent_channels else wan21.LATENTS
