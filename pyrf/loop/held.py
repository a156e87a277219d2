"""Latent frames that are given at a chunk's begin and held there: they are clean from the first call on.

So image-to-video models of Wan begin (Wan2.2-TI2V): the image's latent frame is at timestep 0 while the
others are denoised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyrf.loop.finite import check_finite

Timestep = float | tuple[float, ...]
"""Of a call: one of all its latent frames, or one for each of them; in 0..1000."""


class HeldFrames:
    """The first latent frames of a chunk, which every call sees clean.

    Args:
        latents: [B, n, C, H, W], n of the chunk's frames.
        chunk_frames: latent frames of the chunk.

    Attributes:
        is_whole: whether they fill the chunk, so that nothing is left to denoise.

    Raises:
        ValueError: when they do not fit the chunk, or a value is not finite.
    """

    def __init__(self, latents: Tensor, chunk_frames: int) -> None:
        if latents.ndim != 5 or not 1 <= latents.shape[1] <= chunk_frames:
            raise ValueError(
                f"held latents must be [B, F, C, H, W] with F in 1..{chunk_frames}, got {list(latents.shape)}"
            )
        check_finite("held latents", latents)
        self.latents = latents
        self._count, self._others = latents.shape[1], chunk_frames - latents.shape[1]
        self.is_whole = self._others == 0

    def over(self, latents: Tensor) -> Tensor:
        """A chunk's latents [B, F, C, H, W] with the held ones in their places."""
        return torch.cat((self.latents.to(latents.dtype), latents[:, self._count :]), 1)

    def timesteps(self, timestep: float) -> Timestep:
        """Of a call: 0 for the held frames."""
        return (0.0,) * self._count + (timestep,) * self._others
