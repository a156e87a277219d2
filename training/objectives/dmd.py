"""Distribution matching distillation (DMD; Reward Forcing, section 3.3, with the reward's weight w = 1).

For a rollout x0 of the student and a noise level s of its own for each sample,

    x_t  = (1 - s) x0 + s noise
    real = real_c + g (real_c - real_u)      x0-predictions of the teacher, g the guidance scale
    fake = fake_c                            x0-prediction of the critic, which follows the student
    grad = (fake - real) / mean |x0 - real|  mean over all but the batch; not a number -> 0
    L    = w / 2 * mean (x0 - stopgrad(x0 - grad))^2   in float64
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST, HIGHEST = 20, 980
"""Timesteps of the score comparison are clamped to this range."""


def draw_timesteps(batch: int, shift: float, generator: torch.Generator) -> Tensor:
    """One timestep a sample, [batch] float32: U{0..999}, warped by the shift, clamped."""
    u = torch.randint(1000, (batch,), generator=generator) / 1000
    return (1000 * shift * u / (1 + (shift - 1) * u)).clamp(LOWEST, HIGHEST)


def dmd_gradient(x0: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Normalised direction from the teacher's prediction to the critic's; all [B, ...] of one shape."""
    size = (x0 - real).abs().flatten(1).mean(1).view(-1, *[1] * (x0.ndim - 1))
    return torch.nan_to_num((fake - real) / size)


def dmd_loss(x0: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Scalar whose gradient in x0 is `dmd_gradient` over the number of elements."""
    with torch.no_grad():
        target = x0.double() - dmd_gradient(x0.double(), real.double(), fake.double())
    return 0.5 * (x0.double() - target).square().mean()
