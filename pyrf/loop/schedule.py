"""Flow-matching noise schedule of Wan and its few-step list (golden tables: tests/loop/test_schedule.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

TIMESTEPS = 1000
"""A timestep is a noise level of 0..1 in thousandths; the schedule's table has as many entries."""

Level = TypeVar("Level", float, Tensor)


def warp(u: Level, shift: float, top: float = 1.0) -> Level:
    """Even noise levels u in 0..1 to shifted ones, s u / (1 + (s - 1) u).

    Args:
        top: of the result: 1 for noise levels, ``TIMESTEPS`` for timesteps.
    """
    return top * shift * u / (1 + (shift - 1) * u)


class FlowSchedule:
    """Shifted linear schedule: the noise levels `warp` (u_i) with u_i = 1 - i / TIMESTEPS.

    Noise is added as ``x_t = (1 - sigma) x0 + sigma noise`` and the network predicts ``noise - x0``.
    Real-valued timesteps use the nearest table entry, the first of ties.

    Args:
        shift: the schedule's shift s, 5 for Reward Forcing.

    Attributes:
        sigmas, timesteps: the table, [TIMESTEPS] float32, falling.

    Raises:
        ValueError: when ``shift`` is not positive.
    """

    def __init__(self, shift: float) -> None:
        if shift <= 0:
            raise ValueError(f"shift must be positive, got {shift}")
        u = torch.linspace(1.0, 0.0, TIMESTEPS + 1, dtype=torch.float32, device="cpu")[:-1]
        self.sigmas = warp(u, shift).clamp(max=1)  # some shifts round the first level up
        self.timesteps = self.sigmas * TIMESTEPS

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Noise level of each timestep on the CPU, float32, in its shape (t = 0: the table's last)."""
        distances = (self.timesteps - timesteps.to(self.timesteps.dtype).unsqueeze(-1)).abs()
        return self.sigmas[distances.argmin(-1)]

    def listed(self, steps: Sequence[int]) -> Tensor:
        """Timesteps of listed steps: step m stands for table entry ``TIMESTEPS - m``.

        Raises:
            ValueError: when a step lies outside 1..TIMESTEPS.
        """
        for step in steps:
            if not 1 <= step <= TIMESTEPS:
                raise ValueError(f"denoising steps must lie in 1..{TIMESTEPS}, got {step}")
        return self.timesteps[[TIMESTEPS - step for step in steps]]


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """``(1 - sigma) x0 + sigma noise`` for a sigma that broadcasts, in float32 at least."""
    dtype = torch.promote_types(x0.dtype, torch.float32)
    sigma = sigma.to(dtype)
    return ((1 - sigma) * x0 + sigma * noise).to(x0.dtype)


def to_x0(x_t: Tensor, flow: Tensor, sigma: Tensor) -> Tensor:
    """``x_t - sigma flow`` for a sigma that broadcasts, in float64, cast back to ``x_t``'s dtype."""
    return (x_t.double() - sigma.double() * flow.double()).to(x_t.dtype)
