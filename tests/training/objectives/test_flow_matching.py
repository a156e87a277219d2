"""Flow matching and ODE regression on cases with a known answer."""

from typing import Any

import pytest
import torch

from pyrf.training.objectives.flow_matching import (
    flow_matching_loss,
    interpolate,
    shifted_sigmas,
    subject_weights,
)
from pyrf.training.objectives.ode import ode_regression_loss, solve_ode


def test_sigmas_are_stratified_and_warped() -> None:
    sigmas = shifted_sigmas(64, 3, 3.0, torch.Generator().manual_seed(0))
    assert sigmas.shape == (64, 3)
    u = sigmas / (3 - 2 * sigmas)  # the warp undone
    strata = (u * 64).floor().sort(dim=0).values
    assert torch.equal(strata, torch.arange(64.0)[:, None].expand(-1, 3))


def test_the_true_velocity_has_no_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 3, 4, 2, 2, generator=generator) for _ in range(2))
    sigmas = torch.rand(2, 3, generator=generator)
    loss = flow_matching_loss(lambda x, t: noise - x0, x0, sigmas, noise)
    assert loss.shape == (2, 3)
    assert loss.max() == 0
    assert torch.allclose(
        flow_matching_loss(lambda x, t: noise - x0 + 2, x0, sigmas, noise), torch.tensor(4.0)
    )
    assert torch.equal(interpolate(x0, noise, torch.ones(2, 3)), noise)


def test_motion_weighs_what_changes_from_frame_to_frame_of_a_chunk() -> None:
    x0 = torch.zeros(1, 6, 2, 2, 2)
    offsets = torch.tensor([1.0, 1.0, 3.0, 5.0, 5.0, 4.0]).view(1, 6, 1, 1, 1)

    def loss(**given: Any) -> torch.Tensor:
        return flow_matching_loss(lambda x, t: x0 + offsets, x0, torch.ones(1, 6), x0, **given)

    plain = torch.tensor([[1.0, 1.0, 9.0, 25.0, 25.0, 16.0]])
    assert torch.equal(loss(), plain)
    assert torch.equal(loss(motion_weight=4.0, chunk_frames=3), plain + 2 * torch.tensor([0, 0, 4, 0, 0, 1]))
    assert torch.equal(loss(motion_weight=4.0), plain + 2 * torch.tensor([0, 0, 4, 4, 0, 1]))
    cells = torch.zeros(1, 6, 2, 2)
    assert not loss(motion_weight=4.0, weight=cells).any()


def test_ode_of_a_straight_path_is_exact() -> None:
    """All paths of a single target are straight: Euler steps are exact, and so is every kept state."""
    target, noise = torch.full((1, 3, 1, 1, 1), 2.0), torch.randn(1, 3, 1, 1, 1)
    sigmas = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return (x - target) / sigma

    states, end = solve_ode(velocity, noise, sigmas, keep=[0, 2])
    assert torch.allclose(end, target, atol=1e-6)
    assert torch.equal(states[0], noise)
    assert torch.allclose(states[1], 0.5 * target + 0.5 * noise, atol=1e-6)
    level = torch.full((1, 3), 0.5)
    exact = velocity(states[1], torch.tensor(0.5))
    assert ode_regression_loss(exact, states[1], level, target).max() == pytest.approx(0, abs=1e-10)


def test_subjects_weigh_more_the_less_noise_there_is() -> None:
    cells = torch.zeros(1, 4, 2, 3, dtype=torch.bool)
    cells[..., 0] = True
    weights = subject_weights(cells, 4.0, torch.tensor([[1.0, 0.75, 0.5, 0.0]]))
    assert weights.mean().item() == pytest.approx(1)
    ratios = weights[0, :, 0, 0] / weights[0, :, 0, 1]
    torch.testing.assert_close(ratios, torch.tensor([1, 1.1875, 1.75, 4]))


def test_where_nothing_is_seen_the_best_prediction_is_the_mean() -> None:
    """A subject is in one of 25 cells; a constant weight of 4 would predict 3.6 times as much of it."""
    generator = torch.Generator().manual_seed(0)
    at = torch.randint(25, (4000,), generator=generator)
    cells = torch.nn.functional.one_hot(at, 25).bool().view(4000, 1, 5, 5)
    x0 = cells.float()
    for sigma, most in ((1.0, 1.001), (0.9, 1.05)):
        weights = subject_weights(cells, 4.0, torch.full((4000, 1), sigma))
        best = (weights * x0).sum((0, 1)) / weights.sum((0, 1))
        assert 0.999 < float(best.sum() / x0.mean(0).sum()) < most
