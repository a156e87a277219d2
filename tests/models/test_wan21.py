"""The facts of Wan2.1 are those of its networks."""

from __future__ import annotations

import torch

from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec
from pyrf.models.codecs.wan_vae import WanVAE, build_network
from pyrf.models.wan21 import FPS, LATENTS


def test_both_codecs_code_its_latents() -> None:
    with torch.device("meta"):
        network = build_network({})
    network.post_quant_conv.to_empty(device="cpu")
    for codec in (WanVAE(network), TAEHVCodec(TAEHV())):
        found = (codec.latent_channels, codec.spatial_stride, codec.temporal_stride)
        assert found == LATENTS
        assert codec.fps == FPS
