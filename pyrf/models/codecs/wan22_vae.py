"""Wan2.2's video VAE as a codec: Wan2.1's blocks over patches of pixels, with shortcuts around each level.

A frame is folded into patches of 2 x 2 pixels, so 16 x 16 pixels become a latent. Around each level lies a
shortcut without weights: its pixels averaged where it halves, repeated where it doubles.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_wan import WanDecoder3d
from torch import Tensor, nn

from pyrf.models.codecs.wan_vae import WanVAE
from pyrf.models.codecs.wan_vae_layers import (
    CausalConv3d,
    ChannelsLastDecoder,
    MidBlock,
    Resample,
    ResidualBlock,
    RMSNorm,
    rows,
)

LATENTS_MEAN = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
    *(-0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825),
    *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230),
    *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748),
    *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
LATENTS_STD = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013),
    *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
    *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
    *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
    *(0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)
"""Of each latent channel, as `vae/config.json` of Wan-AI/Wan2.2-TI2V-5B-Diffusers has them."""

CONFIG: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
    "latents_mean": list(LATENTS_MEAN),
    "latents_std": list(LATENTS_STD),
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 16,
}
"""What the published VAE's config says; Wan's own file has none beside it."""


class Wan22VAE(WanVAE):
    """The codec of Wan2.2-TI2V-5B (the `Codec` protocol); takes what `WanVAE` does and streams alike."""

    @property
    def spatial_stride(self) -> int:
        return super().spatial_stride * self.patch

    @property
    def patch(self) -> int:
        """Pixels a side that are folded into channels."""
        return int(self.network.config["patch_size"])

    def folded(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] to [B, C * p * p, T, H / p, W / p]; of a pixel's place the column counts first."""
        p = self.patch
        x = x.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # B C T h q w r
        return x.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)

    def unfolded(self, x: Tensor) -> Tensor:
        p = self.patch
        x = x.unflatten(1, (-1, p, p))  # B C r q T h w
        return x.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)

    def _channels_last(self, decoder: WanDecoder3d) -> ChannelsLastDecoder:
        return ResidualChannelsLastDecoder(decoder)


def repeated(x: Tensor, channels: int, frames: int, sides: int) -> Tensor:
    """The shortcut of a level that doubles: x [B, C, T, H, W] to [B, channels, frames T, sides H, sides W].

    Each channel stands for as many neighbours of a place as it has room for; what is left is repeated.
    """
    last = rows(x)
    last = last.repeat_interleave(channels * frames * sides * sides // last.shape[-1], -1)
    last = last.unflatten(-1, (channels, frames, sides, sides))  # B T H W C t y x
    return last.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)


class ResidualUpBlock(nn.Module):
    """Residual blocks and doubling, with a shortcut around them; the last of them doubles nothing."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, upsampler: Resample | None) -> None:
        super().__init__()
        widths = [channels_in] + blocks * [channels_out]
        self.resnets = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(widths))
        self.upsampler = upsampler
        self.channels = channels_out

    def forward(
        self, x: Tensor, feat_cache: list[Any], feat_idx: list[int], first_chunk: bool = False
    ) -> Tensor:
        shortcut = x
        for layer in self.resnets:
            x = layer(x, feat_cache, feat_idx)
        if self.upsampler is None:
            return x
        x = self.upsampler(x, feat_cache, feat_idx)
        frames = 1 if self.upsampler.time_conv is None else 2
        shortcut = repeated(shortcut, self.channels, frames, 2)
        return x + (shortcut[:, :, frames - 1 :] if first_chunk else shortcut)


class ResidualChannelsLastDecoder(ChannelsLastDecoder):
    """The decoder; its parameters have the names of diffusers' `WanDecoder3d` with residual blocks."""

    def _build(self, decoder: WanDecoder3d) -> None:
        widths = [decoder.dim * multiple for multiple in reversed(decoder.dim_mult)]
        self.conv_in = CausalConv3d(decoder.z_dim, widths[0], (3, 3, 3))
        self.mid_block = MidBlock(widths[0])
        self.up_blocks = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise([widths[0], *widths])):
            doubled = None
            if level < len(widths) - 1:
                doubled = Resample(width, width, doubles_frames=decoder.temperal_upsample[level])
            self.up_blocks.append(ResidualUpBlock(before, width, decoder.num_res_blocks + 1, doubled))
        self.norm_out = RMSNorm((widths[-1], 1, 1, 1))
        self.conv_out = CausalConv3d(widths[-1], decoder.conv_out.out_channels, (3, 3, 3))
