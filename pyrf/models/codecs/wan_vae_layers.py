"""The decoder of diffusers' Wan VAE as a GPU wants it: the same function, laid out channels last.

diffusers' layers pad and convert before they compute, and cuDNN turns every convolution's input and output.
Here channels come last in memory from end to end, borders are left to the convolutions, what lies between
two convolutions of a block is one pass (a bias with a norm and SiLU, or with a residual), and no tensor is
widened to float32, or to twice its rows and columns before it is convolved.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    CACHE_T,
    WanCausalConv3d,
    WanResample,
    WanResidualBlock,
    WanRMS_norm,
)
from torch import Tensor, nn

from pyrf.ops import bias_norm, gated_sum

EPS = 1e-12
"""Keeps the norm of zeros zero; far below any mean square that a frame has."""


def rows(x: Tensor) -> Tensor:
    """[B, C, ...] to [B, ..., C]: no copy, since channels are last in memory."""
    return x.movedim(1, -1).contiguous()


def joined(past: Tensor, x: Tensor) -> Tensor:
    """x [B, C, T, H, W] after the frames before it; as rows, since of others torch.cat guesses the layout."""
    return torch.cat([rows(past), rows(x)], dim=1).movedim(-1, 1)


def last_frames(past: Tensor | None, x: Tensor) -> Tensor:
    """A copy of the frames of x [B, C, T, H, W], or before it, that a convolution must know later."""
    known = x if past is None or x.shape[2] >= CACHE_T else joined(past, x)
    return rows(known)[:, -CACHE_T:].clone().movedim(-1, 1)


class CausalConv3d(WanCausalConv3d):
    """Takes the frames before x from the cache, and zeros before the stream."""

    _padding: tuple[int, int, int, int, int, int]

    def forward(self, x: Tensor, cache_x: Tensor | None = None, *, has_bias: bool = True) -> Tensor:
        columns, _, lines, _, past, _ = self._padding
        if past and cache_x is not None:
            x = joined(cache_x, x)
            past -= cache_x.shape[2]
        if past:
            x = F.pad(rows(x), (0, 0, 0, 0, 0, 0, past, 0)).movedim(-1, 1)
        bias = self.bias if has_bias else None
        return F.conv3d(x, self.weight, bias, self.stride, (0, lines, columns))

    def stream_without_bias(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:
        """The next frames of a stream; the last ones are kept in its cache."""
        place = feat_idx[0]
        feat_idx[0] += 1
        past = feat_cache[place]
        feat_cache[place] = last_frames(past, x)
        return self(x, past, has_bias=False)


class RMSNorm(WanRMS_norm):
    """Over the channels of x [B, C, ...] plus a bias [C]."""

    def forward(self, x: Tensor, bias: Tensor | None = None, *, silu: bool = False) -> Tensor:
        normed = bias_norm(rows(x), self.gamma.flatten(), bias=bias, eps=EPS, rms=True, silu=silu)
        return normed.movedim(-1, 1)


class LastNorm(RMSNorm):
    """With the activation that follows."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, silu=True)


class ResidualBlock(WanResidualBlock):
    """Twice norm, SiLU and convolution, beside a shortcut."""

    norm1: RMSNorm
    norm2: RMSNorm
    conv1: CausalConv3d
    conv2: CausalConv3d

    def forward(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:  # type: ignore[override]
        shortcut = self.conv_shortcut(x)
        x = self.norm1(x, silu=True)
        x = self.conv1.stream_without_bias(x, feat_cache, feat_idx)
        x = self.norm2(x, self.conv1.bias, silu=True)
        x = self.conv2.stream_without_bias(x, feat_cache, feat_idx)
        return gated_sum(rows(x), rows(shortcut), bias=self.conv2.bias).movedim(-1, 1)


def words(x: Tensor) -> Tensor:
    """x as words of 16 bytes, to be moved, where its last dimension lies together in whole ones; else x."""
    if x.stride(-1) != 1 or x.shape[-1] * x.element_size() % 16:
        return x
    return x.view(torch.complex128)


def fold_upsampling(weight: Tensor) -> Tensor:
    """A 3x3 convolution of doubled rows and columns as 2x2 convolutions of the rows and columns themselves.

    An even output row sees the row above once and its own twice, an odd one its own twice and the row below
    once; columns likewise. So the weights that meet the same pixel are added up: 4 of 9 products are left.

    Args:
        weight: [out, in, 3, 3].

    Returns:
        [4 * out, in, 2, 2]: for even and odd rows, within them for even and odd columns.
    """
    # [parity, tap of doubled rows, tap of rows]; an odd row's two taps begin one row further down
    meet = weight.new_tensor([[[1, 0], [0, 1], [0, 1]], [[1, 0], [1, 0], [0, 1]]], dtype=torch.float32)
    return torch.einsum("oiuv,aux,bvy->aboixy", weight.float(), meet, meet).flatten(0, 2).to(weight.dtype)


def interleaved(y: Tensor) -> Tensor:
    """What `fold_upsampling`'s convolutions give to pictures: [B, 4 C, H + 1, W + 1] to [B, C, 2 H, 2 W]."""
    y = y.movedim(1, -1).contiguous().unflatten(-1, (2, 2, -1))
    height, width, channels = y.shape[1] - 1, y.shape[2] - 1, y.shape[-1]
    out = y.new_empty(len(y), height, 2, width, 2, channels)
    for a, b in product(range(2), range(2)):
        words(out)[:, :, a, :, b] = words(y)[:, a : a + height, b : b + width, a, b]
    return out.flatten(3, 4).flatten(1, 2).movedim(-1, 1)


class Resample(WanResample):
    """Doubles rows and columns, and frames where it has a `time_conv`."""

    weight: Tensor
    bias: Tensor

    def fold(self) -> None:
        """Make the weights that `forward` reads; those that the convolution has stay."""
        convolution = self.resample[1]
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        weight = fold_upsampling(convolution.weight).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", convolution.bias.repeat(4), persistent=False)

    def forward(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:  # type: ignore[override]
        if self.mode == "upsample3d":
            x = self._double_frames(x, feat_cache, feat_idx)
        batch = x.shape[0]
        x = interleaved(F.conv2d(x.transpose(1, 2).flatten(0, 1), self.weight, self.bias, padding=1))
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
            past = None
        feat_cache[place] = last_frames(past, x)
        twice = self.time_conv(x, past).movedim(1, -1).unflatten(-1, (2, -1))  # [B, T, H, W, 2, C]
        return words(twice.movedim(4, 2)).contiguous().view(x.dtype).flatten(1, 2).movedim(-1, 1)


SWAPPED = {
    WanCausalConv3d: CausalConv3d,
    WanRMS_norm: RMSNorm,
    WanResample: Resample,
    WanResidualBlock: ResidualBlock,
}


def lay_out_channels_last(decoder: nn.Module) -> None:
    """Change a decoder in place; its parameters keep their names and values."""
    for module in decoder.modules():
        module.__class__ = SWAPPED.get(type(module), type(module))
        if isinstance(module, Resample):
            module.fold()
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    decoder.norm_out.__class__ = LastNorm
    decoder.nonlinearity = nn.Identity()
