"""Flow matching: the velocity of the straight path from data to noise.

x_t = (1 - sigma) x0 + sigma noise,   L = E || v(x_t, t) - (noise - x0) ||^2,   t = 1000 sigma
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyrf.loop.noise import uniform
from pyrf.loop.schedule import TIMESTEPS, add_noise, warp


def shifted_sigmas(batch: int, columns: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels [batch, columns]: u stratified in each column, warped to s u / (1 + (s - 1) u)."""
    strata = torch.stack(
        [torch.randperm(batch, generator=generator, dtype=torch.int64, device="cpu") for _ in range(columns)],
        dim=1,
    )
    u = (strata + uniform((batch, columns), generator)) / batch
    return warp(u, shift)


def interpolate(x0: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """x_t for noise levels of each frame: x0, noise [B, F, C, H, W]; sigmas [B, F]."""
    return add_noise(x0, noise, sigmas[..., None, None, None])


def flow_matching_loss(
    predict: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    sigmas: Tensor,
    noise: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Squared error of each frame, [B, F].

    Args:
        predict: `predict(x_t, timesteps [B, F])` gives the velocity.
        x0, noise: [B, F, C, h, w]; sigmas: [B, F].
        weight: of cells, [B, F, h, w]. What is best to predict does not depend on it.
    """
    velocity = predict(interpolate(x0, noise, sigmas), TIMESTEPS * sigmas)
    error = (velocity - (noise - x0)).square()
    return (error if weight is None else error * weight[:, :, None]).mean((2, 3, 4))


def subject_weights(cells: Tensor, weight: float) -> Tensor:
    """Weights of mean 1 in which a cell that is set weighs `weight` times one that is not; cells bool."""
    weights = 1 + (weight - 1) * cells.float()
    return weights / weights.mean()
