"""Flow-matching noise schedule of Wan and its few-step list (golden tables: tests/loop/test_schedule.py)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class FlowSchedule:
    """Shifted linear schedule: sigma_i = s u_i / (1 + (s - 1) u_i) with u_i = 1 - i / n.

    Noise is added as ``x_t = (1 - sigma) x0 + sigma noise`` and the network predicts ``noise - x0``.
    A timestep is ``1000 sigma``; real-valued timesteps use the nearest table entry, the first of ties.

    Args:
        shift: the schedule's shift s, 5 for Reward Forcing.
        num_train_timesteps: entries of the table.

    Raises:
        ValueError: when ``shift`` is not positive.
    """

    def __init__(self, shift: float, num_train_timesteps: int = 1000) -> None:
        if shift <= 0:
            raise ValueError(f"shift must be positive, got {shift}")
        self.shift = shift
        self.num_train_timesteps = num_train_timesteps
        u = torch.linspace(1.0, 0.0, num_train_timesteps + 1)[:-1]
        self.sigmas = shift * u / (1 + (shift - 1) * u)
        self.timesteps = self.sigmas * num_train_timesteps
        y = torch.exp(-2 * ((self.timesteps - num_train_timesteps / 2) / num_train_timesteps) ** 2)
        y = y - y.min()
        self._weights = y * (num_train_timesteps / y.sum())
        self._tables: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def _at(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The sigmas, timesteps and weights on a device, copied there once."""
        if device not in self._tables:
            self._tables[device] = (
                self.sigmas.to(device),
                self.timesteps.to(device),
                self._weights.to(device),
            )
        return self._tables[device]

    def _index(self, timesteps: Tensor) -> Tensor:
        table = self._at(timesteps.device)[1]
        return (table - timesteps.to(table.dtype).unsqueeze(-1)).abs().argmin(-1)

    def sigma(self, timesteps: Tensor) -> Tensor:
        """Noise level of each timestep, float32, the shape of ``timesteps`` (t = 0: the table's last)."""
        return self._at(timesteps.device)[0][self._index(timesteps)]

    def training_weight(self, timesteps: Tensor) -> Tensor:
        """Loss weight of each timestep: a bell around the middle, float32, mean 1 over the table."""
        return self._at(timesteps.device)[2][self._index(timesteps)]

    def warp(self, steps: Sequence[int]) -> Tensor:
        """Timesteps of listed steps: step m stands for table entry ``num_train_timesteps - m``.

        Raises:
            ValueError: when a step lies outside 1..num_train_timesteps.
        """
        n = self.num_train_timesteps
        for step in steps:
            if not 1 <= step <= n:
                raise ValueError(f"denoising steps must lie in 1..{n}, got {step}")
        return self.timesteps[[n - step for step in steps]]

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents to noisy ones, computed in float32 at least.

        Args:
            x0, noise: [..., C, H, W] with leading dimensions that ``timesteps`` has, or has fewer of.
            timesteps: one for all, [B], or [B, F].
        """
        return add_noise(x0, noise, _trailing(self.sigma(timesteps), x0))

    def to_x0(self, x_t: Tensor, flow: Tensor, timesteps: Tensor) -> Tensor:
        """Clean prediction ``x_t - sigma flow``, computed in float64 and cast back to ``x_t``'s dtype."""
        return to_x0(x_t, flow, _trailing(self.sigma(timesteps), x_t))


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """``(1 - sigma) x0 + sigma noise`` for a sigma that broadcasts, in float32 at least."""
    dtype = torch.promote_types(x0.dtype, torch.float32)
    sigma = sigma.to(dtype)
    return ((1 - sigma) * x0 + sigma * noise).to(x0.dtype)


def to_x0(x_t: Tensor, flow: Tensor, sigma: Tensor) -> Tensor:
    """``x_t - sigma flow`` for a sigma that broadcasts, in float64, cast back to ``x_t``'s dtype."""
    return (x_t.double() - sigma.double() * flow.double()).to(x_t.dtype)


def _trailing(values: Tensor, like: Tensor) -> Tensor:
    """Append singleton dimensions so that leading dimensions broadcast against ``like``."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))
