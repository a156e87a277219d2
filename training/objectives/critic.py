"""The critic of DMD: it learns by flow matching what the student's rollouts look like.

    x_t = (1 - s) x0 + s noise,   L = E || v(x_t, t) - (noise - x0) ||^2,   t = 1000 s

x0 is a rollout without gradient; t follows the rule of the student's loss (`dmd.draw_timesteps`), one per
sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyrf.loop.noise import gauss
from pyrf.loop.schedule import TIMESTEPS
from pyrf.training.objectives.dmd import draw_timesteps
from pyrf.training.objectives.flow_matching import flow_matching_loss


def critic_loss(
    predict: Callable[[Tensor, Tensor], Tensor], x0: Tensor, shift: float, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the velocity, a scalar.

    Args:
        predict: (x_t [B, F, C, H, W], timesteps [B]) -> velocity.
        x0: rollouts, [B, F, C, H, W].
        shift: of the timesteps.
    """
    sigmas = (draw_timesteps(len(x0), shift, generator) / TIMESTEPS)[:, None].expand(-1, x0.shape[1])
    sigmas, noise = (
        sigmas.to(x0.device),
        gauss(x0.shape, generator).to(x0.device),
    )
    return flow_matching_loss(lambda x, t: predict(x, t[:, 0]), x0.float(), sigmas, noise).mean()
