"""Distribution matching distillation, DMD, and with a reward's weight, Re-DMD (Reward Forcing, section 3.3).

The student is drawn to p*(x) ~ q(x) exp(r(x) / b), q the teacher's distribution and r a reward. For a
rollout x0 of the student and a noise level s of its own for each sample,

    x_t  = (1 - s) x0 + s noise
    real = real_c + g (real_c - real_u)      x0-predictions of the teacher, g the guidance scale
    fake = fake_c                            x0-prediction of the critic, which follows the student
    grad = (fake - real) / mean |x0 - real|  mean over all but the batch; not a number -> 0
    w    = exp(r(x0) / b)                    a constant: no gradient flows through the reward; DMD: w = 1
    L    = w / 2 * mean (x0 - stopgrad(x0 - grad))^2   in float64

With captions that ask for different speeds, most of the spread of r is the captions'. An advantage leaves
only what samples of one caption differ in. A batch is then a group: all its samples have one caption, and

    A_i  = (r_i - mean r) / std r            over the group; 0 where all are alike
    w_i  = max(0, 1 + A_i / b)               exp(A_i / b) to first order; 1 / b = 0 is DMD here too

What the weight can change, and what it cannot: where grad is 0 for every sample, it stays 0 under any
weight. A student that can match the teacher exactly has the same optimum with and without it. The weight
decides which samples pull harder on the way there, and so where a student ends that cannot match: one with
fewer modes more often in a rewarded one, one narrower than the teacher above the teacher's reward, one
wider below it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrf.loop.noise import below
from pyrf.loop.schedule import TIMESTEPS, warp

LOWEST, HIGHEST = 20, 980
"""Timesteps of the score comparison are clamped to this range."""
SMALLEST_STD = 1e-6
"""Of a group's scores; samples that differ less count as alike."""


def draw_timesteps(batch: int, shift: float, generator: torch.Generator) -> Tensor:
    """One timestep per sample, [batch] float32: U{0..999}, warped by the shift, clamped."""
    u = below(TIMESTEPS, (batch,), generator).float() / TIMESTEPS
    return warp(u, shift, top=TIMESTEPS).clamp(LOWEST, HIGHEST)


def reward_weights(scores: Tensor, inverse_beta: float) -> Tensor:
    """w = exp(score / b) of each sample, [B] float64; NaN where the score is not finite.

    Args:
        scores: [B], normalised to mean 0 and deviation 1.
        inverse_beta: 1 / b; the paper's is 2, 0 is DMD.
    """
    weights = torch.exp(inverse_beta * scores.double())
    return torch.where(torch.isfinite(scores), weights, math.nan)


def advantage_weights(scores: Tensor, inverse_beta: float) -> Tensor:
    """w = max(0, 1 + A / b) of each sample, [B] float64; NaN where the score is not finite.

    Args:
        scores: [B], of samples of one caption, in any unit.
        inverse_beta: 1 / b; 0 is DMD.
    """
    judged = torch.isfinite(scores)
    found = scores[judged].double()
    weights = torch.full(scores.shape, math.nan, dtype=torch.float64, device=scores.device)
    if len(found):
        advantages = (found - found.mean()) / found.std(correction=0).clamp(min=SMALLEST_STD)
        weights[judged] = (1 + inverse_beta * advantages).clamp(min=0)
    return weights


def dmd_gradient(x0: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Normalised direction from the teacher's prediction to the critic's; all [B, ...] of one shape."""
    size = (x0 - real).abs().flatten(1).mean(1).view(-1, *[1] * (x0.ndim - 1))
    return torch.nan_to_num((fake - real) / size)


def dmd_loss(x0: Tensor, real: Tensor, fake: Tensor, weights: Tensor | None = None) -> Tensor:
    """Scalar whose gradient in x0 is `dmd_gradient`, weighted, over the number of elements.

    Args:
        x0, real, fake: [B, ...] of one shape.
        weights: [B], see `reward_weights`; samples whose weight is NaN are not counted in this mean.
    """
    with torch.no_grad():
        target = x0.double() - dmd_gradient(x0.double(), real.double(), fake.double())
    losses = 0.5 * (x0.double() - target).square().flatten(1).mean(1)
    if weights is None:
        return losses.mean()
    counted = torch.isfinite(weights)
    return (torch.where(counted, weights, 0.0) * losses).sum() / counted.sum().clamp(min=1)
