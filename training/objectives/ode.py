"""ODE regression: the student jumps from any listed noise level to where the teacher's path ends.

    L = E_j || x_{t_j} - sigma_j v(x_{t_j}, t_j) - y ||^2

x_{t_j} are states of the teacher's probability-flow ODE at the few-step list, y is its end
(CausVid, section 4.2; Reward Forcing's initialisation).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def solve_ode(
    velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, sigmas: Tensor, keep: list[int]
) -> tuple[Tensor, Tensor]:
    """Euler steps down a grid of noise levels.

    Args:
        velocity: (x, sigma) -> dx/dsigma.
        sigmas: [n + 1], falling to 0.
        keep: indices of the grid whose states are kept.

    Returns:
        The kept states [len(keep), ...] and the end of the path.
    """
    x, kept = noise, []
    for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
        if i in keep:
            kept.append(x)
        x = x + (then - now) * velocity(x, now)
    return torch.stack(kept), x


def ode_regression_loss(velocity: Tensor, x_t: Tensor, sigmas: Tensor, target: Tensor) -> Tensor:
    """Squared error of each frame [B, F]; tensors [B, F, C, H, W], sigmas [B, F]."""
    return (x_t - sigmas[..., None, None, None] * velocity - target).square().mean((2, 3, 4))
