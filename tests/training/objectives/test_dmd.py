"""DMD: worked numbers of the formulae, and the closed form for Gaussians."""

import math

import pytest
import torch

from pyrf.training.objectives.dmd import dmd_gradient, dmd_loss, draw_timesteps


def test_timesteps_are_warped_and_clamped() -> None:
    t = draw_timesteps(20_000, 5.0, torch.Generator().manual_seed(0))
    assert t.min() == 20
    assert t.max() == 980
    # u = 0.5 -> 5 * 0.5 / 3 = 5/6, so half of the draws lie above 833.3
    assert (t > 833.34).float().mean() == pytest.approx(0.5, abs=0.01)


def test_worked_numbers() -> None:
    x0 = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    real = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    fake = torch.tensor([[2.0, 4.0], [1.0, 1.0]])
    gradient = dmd_gradient(x0, real, fake)
    assert torch.equal(gradient[0], torch.tensor([2.0, 3.0]) / 1.5)
    assert gradient[1].abs().max() > 1e30  # 1 / 0 is clipped to the largest float, not infinite
    assert dmd_gradient(x0, x0, x0).abs().max() == 0  # 0 / 0 is 0
    loss = dmd_loss(x0[:1], real[:1], fake[:1])
    assert float(loss) == pytest.approx(0.5 * ((2 / 1.5) ** 2 + (3 / 1.5) ** 2) / 2)


def test_gradient_is_the_closed_form_for_gaussians() -> None:
    """Student N(m, 1), teacher N(0, 1): the gradient points along m at every noise level."""
    generator = torch.Generator().manual_seed(0)
    mean, samples = 1.5, 200_000
    x0 = (mean + torch.randn(samples, 1, generator=generator)).requires_grad_()
    s = 0.4
    x_t = (1 - s) * x0.detach() + s * torch.randn(x0.shape, generator=generator)

    def posterior(of_mean: float) -> torch.Tensor:
        """E[x0 | x_t] where x0 ~ N(of_mean, 1)."""
        gain = (1 - s) / ((1 - s) ** 2 + s**2)
        return of_mean + gain * (x_t - (1 - s) * of_mean)

    real, fake = posterior(0.0), posterior(mean)
    gap = mean * s**2 / ((1 - s) ** 2 + s**2)
    assert (fake - real).mean() == pytest.approx(gap, rel=1e-4)
    loss = dmd_loss(x0, real, fake)
    loss.backward()
    expected = dmd_gradient(x0.detach().double(), real.double(), fake.double()) / samples
    torch.testing.assert_close(x0.grad.double(), expected, rtol=1e-4, atol=1e-12)
    assert math.copysign(1, float(x0.grad.mean())) == 1
