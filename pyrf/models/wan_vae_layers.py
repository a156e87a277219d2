"""The decoder of diffusers' Wan VAE as a GPU wants it: the same function, laid out channels last.

diffusers' layers pad and convert before they compute, and cuDNN turns every convolution's input and output.
Here channels come last in memory from end to end, borders are left to the convolutions, norms are one kernel,
and nothing is widened to float32 in memory.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    CACHE_T,
    WanCausalConv3d,
    WanResample,
    WanRMS_norm,
    WanUpsample,
)
from torch import Tensor, nn

EPS = 1e-12
"""Keeps the norm of zeros zero; far below any mean square that a frame has."""


class CausalConv3d(WanCausalConv3d):
    """Takes the frames before x from the cache, and zeros before the stream."""

    _padding: tuple[int, int, int, int, int, int]

    def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        columns, _, rows, _, past, _ = self._padding
        if past and cache_x is not None:
            x = torch.cat([cache_x, x], dim=2)
            past -= cache_x.shape[2]
        if past:
            x = F.pad(x, (0, 0, 0, 0, past, 0))
        return F.conv3d(x, self.weight, self.bias, self.stride, (0, rows, columns))


class RMSNorm(WanRMS_norm):
    """Over the channels of [B, C, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.gamma.flatten()
        return F.rms_norm(x.movedim(1, -1), weight.shape, weight, EPS).movedim(-1, 1)


class Upsample(WanUpsample):
    """Repeats pixels, which needs no wider dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale_factor, mode=self.mode)


class Resample(WanResample):
    """Doubles rows and columns, and frames where it has a `time_conv`."""

    def forward(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:  # type: ignore[override]
        if self.mode == "upsample3d":
            x = self._double_frames(x, feat_cache, feat_idx)
        batch = x.shape[0]
        x = self.resample(x.transpose(1, 2).flatten(0, 1))
        return x.unflatten(0, (batch, -1)).transpose(1, 2)

    def _double_frames(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:
        """All but the stream's first frame become two."""
        place = feat_idx[0]
        feat_idx[0] += 1
        past = feat_cache[place]
        if past is None:
            feat_cache[place] = "Rep"  # diffusers' word for a stream that has begun, and kept nothing here
            return x
        if past == "Rep":
            past = torch.zeros_like(x[:, :, :1]).expand(-1, -1, CACHE_T, -1, -1)
        feat_cache[place] = torch.cat([past, x], dim=2)[:, :, -CACHE_T:].clone()
        twice = self.time_conv(x, past).movedim(1, -1).unflatten(-1, (2, -1))  # [B, T, H, W, 2, C]
        return twice.movedim(4, 2).flatten(1, 2).movedim(-1, 1)


SWAPPED = {
    WanCausalConv3d: CausalConv3d,
    WanRMS_norm: RMSNorm,
    WanUpsample: Upsample,
    WanResample: Resample,
}


def lay_out_channels_last(decoder: nn.Module) -> None:
    """Change a decoder in place; its parameters keep their names and values."""
    for module in decoder.modules():
        module.__class__ = SWAPPED.get(type(module), type(module))
        if isinstance(module, nn.SiLU):
            module.inplace = True  # it always follows a norm
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
