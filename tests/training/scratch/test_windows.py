"""What windows of clips cost a codec beside their errors: the detail that a blur takes away."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.training.scratch.clips import HELD_OUT_SEED, random_clip
from pyrf.training.scratch.windows import CROP, texture_gap
from pyrf.worlds.valley.world import Valley


def window() -> tuple[Tensor, Tensor]:
    _, _, frames = random_clip(Valley(), HELD_OUT_SEED, 4)
    video = frames.float()[None, :, :, -CROP[0] :, : CROP[1]] / 255
    return video, torch.ones_like(video[:, :, :1])


def blurred(video: Tensor) -> Tensor:
    soft = F.avg_pool2d(video.flatten(0, 1), 5, 1, 2, count_include_pad=False)
    return soft.view_as(video)


def gap(decoded: Tensor, video: Tensor, weight: Tensor) -> float:
    return float(texture_gap(decoded, video, weight)[0])


def test_a_blur_costs_more_than_details_a_little_elsewhere_though_its_error_is_less() -> None:
    video, weight = window()
    moved, soft = video.roll(2, -1), blurred(video)
    assert (soft - video).square().mean() < (moved - video).square().mean()
    assert gap(video, video, weight) == 0
    assert gap(soft, video, weight) > 2 * gap(moved, video, weight)


def test_details_that_are_not_there_cost_as_well() -> None:
    video, weight = window()
    noisy = video + 0.05 * torch.randn(video.shape, generator=torch.Generator().manual_seed(0))
    found, power = texture_gap(noisy, video, weight)
    assert float(found) > gap(blurred(video), video, weight)
    assert power > 1.5
    assert texture_gap(blurred(video), video, weight)[1] < 0.5


def test_pixels_without_weight_do_not_count() -> None:
    video, weight = window()
    weight[..., :32] = 0
    other = video.clone()
    other[..., :24] = 0.5  # far enough from the border for the wider blur
    assert gap(other, video, weight) == 0


def test_descent_sharpens_a_blurred_window_and_a_flat_one_stays_finite() -> None:
    video, weight = window()
    decoded = blurred(video).requires_grad_()
    before, _ = texture_gap(decoded, video, weight)
    (slope,) = torch.autograd.grad(before, decoded)
    step = 1e-3 * slope / slope.abs().max()
    assert gap(decoded.detach() - step, video, weight) < float(before.detach())

    flat = torch.full_like(video, 0.5).requires_grad_()
    texture_gap(flat, video, weight)[0].backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())
