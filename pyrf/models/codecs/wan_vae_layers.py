"""The decoder of diffusers' Wan VAE as a GPU wants it: the same function, laid out channels last.

diffusers' layers pad and convert before they compute, and cuDNN turns every convolution's input and output.
Here channels come last in memory from end to end, borders are left to the convolutions, what lies between
two convolutions of a block is one pass (a bias with a norm and SiLU, or with a residual), and no tensor is
widened to float32, or to twice its rows and columns before it is convolved.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import CACHE_T, WanDecoder3d
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


class CausalConv3d(nn.Conv3d):
    """A convolution with stride 1, of an odd kernel, that sees the frames before x and none after.

    Args:
        kernel: frames, rows and columns.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int, int]) -> None:
        frames, lines, columns = kernel
        super().__init__(channels_in, channels_out, kernel, padding=(0, lines // 2, columns // 2))
        self.past = frames - 1

    def forward(self, x: Tensor, past: Tensor | None = None, *, has_bias: bool = True) -> Tensor:
        """x [B, C, T, H, W] after `past`, the frames before it; where those end, zeros."""
        missing = self.past
        if missing and past is not None:
            x = joined(past, x)
            missing -= past.shape[2]
        if missing:
            x = F.pad(rows(x), (0, 0, 0, 0, 0, 0, missing, 0)).movedim(-1, 1)
        return F.conv3d(x, self.weight, self.bias if has_bias else None, padding=self.padding)

    def stream(
        self, x: Tensor, feat_cache: list[Any], feat_idx: list[int], *, has_bias: bool = True
    ) -> Tensor:
        """The next frames of a stream; the last ones are kept in its cache."""
        place = feat_idx[0]
        feat_idx[0] += 1
        past = feat_cache[place]
        feat_cache[place] = last_frames(past, x)
        return self(x, past, has_bias=has_bias)


class RMSNorm(nn.Module):
    """Over the channels of x [B, C, ...] plus a bias [C]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor, bias: Tensor | None = None, *, silu: bool = False) -> Tensor:
        normed = bias_norm(rows(x), self.gamma.flatten(), bias=bias, eps=EPS, rms=True, silu=silu)
        return normed.movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and convolution, beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm((channels_in, 1, 1, 1))
        self.conv1 = CausalConv3d(channels_in, channels_out, (3, 3, 3))
        self.norm2 = RMSNorm((channels_out, 1, 1, 1))
        self.conv2 = CausalConv3d(channels_out, channels_out, (3, 3, 3))
        same = channels_in == channels_out
        self.conv_shortcut = nn.Identity() if same else CausalConv3d(channels_in, channels_out, (1, 1, 1))

    def forward(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:
        shortcut = self.conv_shortcut(x)
        x = self.norm1(x, silu=True)
        x = self.conv1.stream(x, feat_cache, feat_idx, has_bias=False)
        x = self.norm2(x, self.conv1.bias, silu=True)
        x = self.conv2.stream(x, feat_cache, feat_idx, has_bias=False)
        return gated_sum(rows(x), rows(shortcut), bias=self.conv2.bias).movedim(-1, 1)


class Attention(nn.Module):
    """Of one head, over the pixels of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm((channels, 1, 1))
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        pictures = x.permute(0, 2, 1, 3, 4).reshape(batch * frames, channels, height, width)
        qkv = self.to_qkv(self.norm(pictures)).reshape(batch * frames, 1, 3 * channels, -1)
        q, k, v = qkv.permute(0, 1, 3, 2).contiguous().chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v).squeeze(1).permute(0, 2, 1)
        out = self.proj(seen.reshape(batch * frames, channels, height, width))
        return out.view(batch, frames, channels, height, width).permute(0, 2, 1, 3, 4) + x


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


class Resample(nn.Module):
    """Doubles rows and columns, and frames where `doubles_frames`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, channels_out: int, *, doubles_frames: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), nn.Conv2d(channels, channels_out, 3, padding=1))
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if doubles_frames else None

    def fold(self) -> None:
        """Make the weights that `forward` reads; those that the convolution has stay."""
        convolution = self.resample[1]
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        weight = fold_upsampling(convolution.weight).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", convolution.bias.repeat(4), persistent=False)

    def forward(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:
        if self.time_conv is not None:
            x = self._double_frames(self.time_conv, x, feat_cache, feat_idx)
        batch = x.shape[0]
        x = interleaved(F.conv2d(x.transpose(1, 2).flatten(0, 1), self.weight, self.bias, padding=1))
        return x.unflatten(0, (batch, -1)).transpose(1, 2)

    def _double_frames(
        self, time_conv: CausalConv3d, x: Tensor, feat_cache: list[Any], feat_idx: list[int]
    ) -> Tensor:
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
        twice = time_conv(x, past).movedim(1, -1).unflatten(-1, (2, -1))  # [B, T, H, W, 2, C]
        return words(twice.movedim(4, 2)).contiguous().view(x.dtype).flatten(1, 2).movedim(-1, 1)


class MidBlock(nn.Module):
    """Two residual blocks with attention between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels)])
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels) for _ in range(2)])

    def forward(self, x: Tensor, feat_cache: list[Any], feat_idx: list[int]) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, feat_cache, feat_idx))
        return self.resnets[1](x, feat_cache, feat_idx)


class UpBlock(nn.Module):
    """Residual blocks, and doubling after all but the last of them."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, upsampler: Resample | None) -> None:
        super().__init__()
        widths = [channels_in] + blocks * [channels_out]
        self.resnets = nn.ModuleList(ResidualBlock(a, b) for a, b in pairwise(widths))
        self.upsamplers = nn.ModuleList([] if upsampler is None else [upsampler])

    def forward(
        self, x: Tensor, feat_cache: list[Any], feat_idx: list[int], first_chunk: bool = False
    ) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x, feat_cache, feat_idx)
        return x


class ChannelsLastDecoder(nn.Module):
    """The decoder; its parameters have the names of diffusers' `WanDecoder3d`.

    Args:
        decoder: diffusers', with its weights, which are shared where their layout in memory allows it.
    """

    def __init__(self, decoder: WanDecoder3d) -> None:
        super().__init__()
        with torch.device("meta"):
            self._build(decoder)
        self.load_state_dict(decoder.state_dict(), assign=True)
        self.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, Resample):
                module.fold()
            elif isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
            elif isinstance(module, nn.Conv3d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)

    def _build(self, decoder: WanDecoder3d) -> None:
        widths = [decoder.dim * multiple for multiple in reversed(decoder.dim_mult)]
        levels = len(widths)
        self.conv_in = CausalConv3d(decoder.z_dim, widths[0], (3, 3, 3))
        self.mid_block = MidBlock(widths[0])
        self.up_blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            # Doubling halves the channels.
            before = widths[0] if level == 0 else widths[level - 1] // 2
            doubled = None
            if level < levels - 1:
                doubled = Resample(width, width // 2, doubles_frames=decoder.temperal_upsample[level])
            self.up_blocks.append(UpBlock(before, width, decoder.num_res_blocks + 1, doubled))
        self.norm_out = RMSNorm((widths[-1], 1, 1, 1))
        self.conv_out = CausalConv3d(widths[-1], decoder.conv_out.out_channels, (3, 3, 3))

    def forward(
        self, x: Tensor, feat_cache: list[Any], feat_idx: list[int], first_chunk: bool = False
    ) -> Tensor:
        """Latents [B, C, T, h, w] to frames in [-1, 1], not clamped; called as `WanDecoder3d` is.

        feat_cache: the stream's memory, see `pyrf.models.codecs.wan_vae.new_cache`; changed in place.
        feat_idx: [0]; counts the places of the memory.
        first_chunk: whether x is a stream's first latent.
        """
        x = self.conv_in.stream(x, feat_cache, feat_idx)
        x = self.mid_block(x, feat_cache, feat_idx)
        for block in self.up_blocks:
            x = block(x, feat_cache, feat_idx, first_chunk)
        return self.conv_out.stream(self.norm_out(x, silu=True), feat_cache, feat_idx)
