"""What every codec offers: latents to frames chunk by chunk, and frames to latents."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pyrf.config import PATCH, LatentSize

MAX_SIDE = 16384
"""Pixels of a frame's side, the most that H.264 encodes."""


class StreamingDecoder(Protocol):
    """Decodes one stream. It carries its memory from call to call; drop it to free that memory."""

    def decode(self, latents: Tensor) -> Tensor:
        """Decode the next latent frames of the stream.

        latents: [B, F, C, h, w] float. Returns frames, uint8 [B, T, H, W, 3], with
        T = 1 + temporal_stride * (F - 1) at the first call and temporal_stride * F later.
        """
        ...


class StreamingEncoder(Protocol):
    """Encodes one stream in fp32. It carries its memory from call to call; drop it to free that memory."""

    def encode(self, frames: Tensor) -> Tensor:
        """Encode the next frames of the stream.

        frames: uint8 [B, T, H, W, 3] with T = 1 + temporal_stride * (F - 1) at the first call and
        temporal_stride * F later. Returns latents, fp32 [B, F, C, h, w]: those of the whole clip at once.
        """
        ...


class Codec(Protocol):
    """Turns frames into latents and back. H = spatial_stride * h, and so is W."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def spatial_stride(self) -> int: ...

    @property
    def temporal_stride(self) -> int: ...

    @property
    def fps(self) -> float: ...

    def decoder(self) -> StreamingDecoder:
        """Start a stream: a decoder with empty memory."""
        ...

    def encoder(self) -> StreamingEncoder:
        """Start a stream: an encoder with empty memory."""
        ...

    def encode(self, frames: Tensor) -> Tensor:
        """Encode a clip in fp32.

        frames: uint8 [B, T, H, W, 3] with T = 1 + temporal_stride * n.
        Returns latents, fp32 [B, 1 + n, C, h, w].
        """
        ...


def latent_size(height: int, width: int, codec: Codec) -> LatentSize:
    """The size of the latents of frames of a size in pixels.

    Raises:
        ValueError: when they do not split into the network's patches, or exceed MAX_SIDE.
    """
    for name, value, patch in (("height", height, PATCH[1]), ("width", width, PATCH[2])):
        multiple = codec.spatial_stride * patch
        if value < multiple or value % multiple:
            nearest = max(1, round(value / multiple)) * multiple
            raise ValueError(f"{name} must be a positive multiple of {multiple}, got {value}; try {nearest}")
        if value > MAX_SIDE:
            raise ValueError(f"{name} must be at most {MAX_SIDE} pixels, got {value}")
    return LatentSize(height // codec.spatial_stride, width // codec.spatial_stride)


def check_frames(frames: Tensor, codec: Codec, *, first: bool = True) -> None:
    """Refuse frames that `codec` cannot encode.

    Args:
        first: whether a stream, or a clip, begins with them.

    Raises:
        ValueError: when `frames` is not uint8 [B, T, H, W, 3] with T = 1 + temporal_stride * n, or
            temporal_stride * (n + 1) later in a stream, and H and W multiples of the codec's spatial stride.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[-1] != 3:
        raise ValueError(
            f"frames must be uint8 [B, T, H, W, 3], got {frames.dtype} {list(frames.shape)}; "
            "a single clip needs a batch axis"
        )
    _, num_frames, height, width, _ = frames.shape
    if num_frames % codec.temporal_stride != int(first) or not num_frames:
        form = "1 + a multiple" if first else "a positive multiple"
        raise ValueError(f"the number of frames must be {form} of {codec.temporal_stride}, got {num_frames}")
    if not height or not width or height % codec.spatial_stride or width % codec.spatial_stride:
        raise ValueError(
            f"height and width must be multiples of {codec.spatial_stride}, got {height} x {width}"
        )


def check_latents(latents: Tensor, codec: Codec) -> None:
    """Refuse latents that `codec` cannot decode.

    Raises:
        ValueError: when `latents` is not float [B, F, C, h, w] with the codec's channels and F >= 1.
    """
    if not latents.is_floating_point() or latents.ndim != 5 or latents.shape[2] != codec.latent_channels:
        raise ValueError(
            f"latents must be float [B, F, {codec.latent_channels}, h, w], "
            f"got {latents.dtype} {list(latents.shape)}"
        )
    if not latents.numel():
        raise ValueError(f"latents are empty: {list(latents.shape)}")


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] (clamped here) to uint8, rounded to the nearest level."""
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)
