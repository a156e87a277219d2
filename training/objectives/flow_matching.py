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
    *,
    motion_weight: float = 0.0,
    chunk_frames: int | None = None,
) -> Tensor:
    """Squared error of each frame, [B, F].

    Most of a frame is where the frame before it has it, so motion is a small part of the error, and is
    learnt last. With `motion_weight` w, half the squared difference of the errors of two frames that follow
    on one another counts w times beside: |e_i|^2 + w / 2 |e_i - e_(i - 1)|^2.

    Args:
        predict: `predict(x_t, timesteps [B, F])` gives the velocity.
        x0, noise: [B, F, C, h, w]; sigmas: [B, F].
        weight: of cells, [B, F, h, w]; what is best to predict depends on it where it depends on x0.
        motion_weight: of the differences; what is best to predict does not depend on it.
        chunk_frames: the first of so many frames has none before it; by default all follow on one another.
    """
    error = predict(interpolate(x0, noise, sigmas), TIMESTEPS * sigmas) - (noise - x0)
    squared = error.square()
    if motion_weight:
        chunks = error.unflatten(1, (-1, chunk_frames or error.shape[1]))
        moved = chunks - torch.cat([chunks[:, :, :1], chunks[:, :, :-1]], dim=2)
        squared = squared + motion_weight / 2 * moved.flatten(1, 2).square()
    return (squared if weight is None else squared * weight[:, :, None]).mean((2, 3, 4))


def subject_weights(cells: Tensor, weight: float, sigmas: Tensor) -> Tensor:
    """Weights of cells, of mean 1: one that is set weighs more than one that is not, the less noise the more.

    Where a subject is follows from x0, so a constant weight w would move what is best to predict while that
    cannot be seen: with p the chance of a subject there, its share becomes w p / (1 + (w - 1) p), and two are
    drawn. At the noise level s it is 1 + (w - 1) (1 - s)^2, which is 1 where nothing is seen.

    Args:
        cells: where subjects are, bool [B, F, h, w].
        weight: of a cell that is set, without noise.
        sigmas: [B, F].
    """
    more = (weight - 1) * (1 - sigmas).square()
    weights = 1 + more[..., None, None] * cells
    return weights / weights.mean()
