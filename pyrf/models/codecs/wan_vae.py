"""Wan2.1's causal video VAE as a codec: diffusers' AutoencoderKLWan, driven by its own causal caches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanCausalConv3d,
    WanDecoder3d,
)
from torch import Tensor, nn

from pyrf.loop.inference import unmixed
from pyrf.models.codecs.codec import check_frames, check_latents, to_uint8
from pyrf.models.codecs.wan_vae_layers import CausalConv3d, ChannelsLastDecoder
from pyrf.models.wan21 import FPS


def build_network(config: Mapping[str, Any]) -> AutoencoderKLWan:
    """Build the network from the content of a Wan VAE's `vae/config.json`; weights are not set.

    Raises:
        ValueError: when mean and std of the latents are not given for each channel.
    """
    network = AutoencoderKLWan.from_config(dict(config))
    for name in ("latents_mean", "latents_std"):
        if len(network.config[name]) != network.config.z_dim:
            raise ValueError(
                f"{name} must have z_dim ({network.config.z_dim}) values, got {len(network.config[name])}"
            )
    return network


def new_cache(stack: nn.Module) -> list[Any]:
    """Empty memory of a stack: a place for each causal convolution."""
    return [None] * sum(isinstance(module, WanCausalConv3d | CausalConv3d) for module in stack.modules())


class WanVAE:
    """The codec of Wan2.1 (the `Codec` protocol).

    The encoder always runs in fp32: bf16 errors in the first latents grow along an autoregressive stream.

    Args:
        network: AutoencoderKLWan with its weights in fp32, from `build_network`.
        decoder_dtype: what the decoder runs in; bf16 is safe, and twice as fast on a GPU.
        fps: frames per second of the clips it codes.
        for_gpu: decode as is best on a GPU, with channels last in memory and a whole chunk at once. It
            needs more memory. The decoder in `network` is replaced by one of the same weights.
    """

    def __init__(
        self,
        network: AutoencoderKLWan,
        *,
        decoder_dtype: torch.dtype = torch.float32,
        fps: float = FPS,
        for_gpu: bool = False,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        network.decoder.to(decoder_dtype)
        network.post_quant_conv.to(decoder_dtype)
        self.fps = fps
        if for_gpu:
            network.register_module("decoder", self._channels_last(network.decoder))
        self.latents_at_once = 3 if for_gpu else 1
        device = network.post_quant_conv.weight.device
        self._mean, self._std = (
            torch.tensor(network.config[name], dtype=torch.float32, device=device).view(-1, 1, 1)
            for name in ("latents_mean", "latents_std")
        )

    @property
    def latent_channels(self) -> int:
        return int(self.network.config["z_dim"])

    @property
    def spatial_stride(self) -> int:
        return int(2 ** (len(self.network.config["dim_mult"]) - 1))

    @property
    def temporal_stride(self) -> int:
        return int(2 ** sum(self.network.config["temperal_downsample"]))

    def folded(self, x: Tensor) -> Tensor:
        """Frames [B, 3, T, H, W] as the network takes them."""
        return x

    def unfolded(self, x: Tensor) -> Tensor:
        """Inverse of `folded`."""
        return x

    def _channels_last(self, decoder: WanDecoder3d) -> ChannelsLastDecoder:
        """The same decoder, laid out for a GPU."""
        return ChannelsLastDecoder(decoder)

    def decoder(self) -> WanVAEDecoder:
        """A decoder of one stream, which carries its memory from call to call."""
        return WanVAEDecoder(self)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, 1 + 4n, H, W, 3] -> latents fp32 [B, 1 + n, C, h, w], the posterior's mean.

        Raises:
            ValueError: when dtype, number of frames or their size do not fit.
        """
        return self.encoder().encode(frames)

    def encoder(self) -> WanVAEEncoder:
        """An encoder of one stream, which carries its memory from call to call."""
        return WanVAEEncoder(self)

    def normalise(self, means: Tensor) -> Tensor:
        """Latents as the encoder makes them -> latents as the DiT sees them."""
        return (means - self._mean) / self._std

    def denormalise(self, latents: Tensor) -> Tensor:
        """Latents as the DiT sees them -> latents as the decoder does, in its dtype and device."""
        z = latents.to(self._mean.device).float() * self._std + self._mean
        return z.to(self.network.post_quant_conv.weight.dtype)


class WanVAEEncoder:
    """Encodes a stream; equal to the whole encode, since all the network's memory is in its caches."""

    def __init__(self, codec: WanVAE) -> None:
        self._codec = codec
        self._cache = new_cache(codec.network.encoder)
        self._started = False

    @torch.no_grad()
    @unmixed()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, T, H, W, 3] -> latents fp32 [B, F, C, h, w]; T = 4F, at the first call 4F - 3.

        Raises:
            ValueError: when dtype, number of frames or their size do not fit.
        """
        check_frames(frames, self._codec, first=not self._started)
        device = self._codec.network.quant_conv.weight.device
        return self._latents(frames.to(device).permute(0, 4, 1, 2, 3) / 127.5 - 1)

    def _latents(self, x: Tensor) -> Tensor:
        """`encode` of x [B, 3, T, H, W] in [-1, 1]."""
        network, stride = self._codec.network, self._codec.temporal_stride
        # The first frame makes a latent by itself, each later one is made of temporal_stride frames.
        sizes = [stride] * (x.shape[2] // stride)
        if not self._started:
            sizes = [1, *sizes]
        self._started = True
        means = []
        for group in self._codec.folded(x).split(sizes, dim=2):
            features = network.encoder(group, feat_cache=self._cache, feat_idx=[0])
            means.append(network.quant_conv(features)[:, : self._codec.latent_channels])
        return self._codec.normalise(torch.cat(means, dim=2).transpose(1, 2))


class WanVAEDecoder:
    """Decodes a stream; equal to the whole decode, since all the network's memory is in its caches."""

    def __init__(self, codec: WanVAE) -> None:
        self._codec = codec
        self._cache = new_cache(codec.network.decoder)
        self._started = False

    @torch.no_grad()
    @unmixed()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, F, C, h, w] -> frames uint8 [B, T, H, W, 3]; T = 4F, at the first call 4F - 3.

        Raises:
            ValueError: when the shape is not that of latents.
        """
        check_latents(latents, self._codec)
        return finish_frames(self._frames(latents))

    def _frames(self, latents: Tensor) -> Iterator[Tensor]:
        first, self._started = not self._started, True
        return raw_frames(self._codec, latents, self._cache, first)


def raw_frames(codec: WanVAE, latents: Tensor, cache: list[Any], first: bool) -> Iterator[Tensor]:
    """Latent frames [B, F, C, h, w] to their frames in [-1, 1], not clamped, some at a time: [B, 3, t, H, W].

    Args:
        cache: the decoder's memory, from `new_cache` at first; replaced in place.
        first: whether the stream begins here.
    """
    z = codec.network.post_quant_conv(codec.denormalise(latents).transpose(1, 2))
    start = 0
    while start < z.shape[2]:
        starts = first and start == 0
        end = start + (1 if starts else codec.latents_at_once)  # a stream's first latent makes one frame
        frames = codec.network.decoder(z[:, :, start:end], feat_cache=cache, feat_idx=[0], first_chunk=starts)
        yield codec.unfolded(frames)
        start = end


def finish_frames(frames: Iterable[Tensor]) -> Tensor:
    """`raw_frames` to uint8 [B, T, H, W, 3]."""
    x = torch.cat(list(frames), dim=2).permute(0, 2, 3, 4, 1)
    return to_uint8(x * 0.5 + 0.5).contiguous()  # TensorRT takes uint8 at a graph's end only
