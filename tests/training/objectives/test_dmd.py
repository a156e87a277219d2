"""DMD and Re-DMD: worked numbers, the closed form for Gaussians, and what a weight changes."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from pyrf.training.objectives.critic import critic_loss
from pyrf.training.objectives.dmd import (
    advantage_weights,
    dmd_gradient,
    dmd_loss,
    draw_timesteps,
    reward_weights,
)


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


def test_weights_are_those_of_the_paper_and_leave_out_what_was_not_judged() -> None:
    scores = torch.tensor([0.0, 0.5, -1.0, math.nan, math.inf])
    weights = reward_weights(scores, 2.0)
    assert weights.tolist() == pytest.approx([1.0, math.e, math.exp(-2), math.nan, math.nan], nan_ok=True)
    assert reward_weights(scores[:3], 0.0).tolist() == [1.0, 1.0, 1.0]

    generator = torch.Generator().manual_seed(0)
    x0, real, fake = (torch.randn(3, 4, generator=generator) for _ in range(3))
    one, two = (float(dmd_loss(x0[i : i + 1], real[i : i + 1], fake[i : i + 1])) for i in (0, 1))
    weighted = dmd_loss(x0, real, fake, torch.tensor([1.0, math.e, math.nan]))
    assert float(weighted) == pytest.approx((one + math.e * two) / 2)
    pulled_by_one = dmd_loss(x0, real, fake, torch.tensor([1.0, 0.0, math.nan]))
    assert float(pulled_by_one) == pytest.approx(one / 2)  # of weight 0, but counted
    assert float(dmd_loss(x0, real, fake, torch.full((3,), math.nan))) == 0
    assert float(dmd_loss(x0, real, fake, torch.ones(3))) == pytest.approx(float(dmd_loss(x0, real, fake)))


def test_advantages_compare_samples_of_one_caption() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 2.0])
    a = math.sqrt(2)  # the group's deviation is 1 / sqrt(2)
    assert advantage_weights(scores, 0.5).tolist() == pytest.approx([1 - a / 2, 1, 1 + a / 2, 1])
    assert advantage_weights(scores, 2.0).tolist() == pytest.approx([0, 1, 1 + 2 * a, 1])
    assert advantage_weights(scores, 0.0).tolist() == [1.0] * 4
    # the unit of the reward does not matter, nor what a caption earns under any noise
    moved = advantage_weights(100 + 7 * scores, 0.5)
    torch.testing.assert_close(moved, advantage_weights(scores, 0.5), rtol=1e-5, atol=1e-6)
    assert advantage_weights(torch.full((4,), 3.0), 2.0).tolist() == [1.0] * 4


def test_advantages_leave_out_what_was_not_judged() -> None:
    weights = advantage_weights(torch.tensor([1.0, math.nan, 3.0]), 0.5)
    assert weights.tolist() == pytest.approx([0.5, math.nan, 1.5], nan_ok=True)
    assert advantage_weights(torch.full((2,), math.nan), 2.0).isnan().all()


def fit(x0: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """[slope, offset] of the velocity that flow matching learns of x0 at one noise level: least squares."""
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    x_t = (1 - sigma) * x0 + sigma * noise
    inputs = torch.stack([x_t, torch.ones_like(x_t)], 1)
    return torch.linalg.lstsq(inputs, (noise - x0)[:, None]).solution[:, 0]


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("critic", "teacher"), [((1.5, 1.0), (0.0, 1.0)), ((0.0, 0.5), (-1.0, 2.0))])
def test_gradient_is_the_closed_form_for_gaussians(
    sigma: float, critic: tuple[float, float], teacher: tuple[float, float]
) -> None:
    """fake - real = s^2 / (1 - s) (student's score - teacher's score): Tweedie's formula.

    Teacher and critic are what flow matching learns from samples, not the formula itself.
    """
    generator = torch.Generator().manual_seed(0)
    x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    predictions, scores = [], []
    for mean, std in (teacher, critic):
        x0 = mean + std * torch.randn(400_000, generator=generator, dtype=torch.float64)
        slope, offset = fit(x0, sigma, generator)
        predictions.append(x_t - sigma * (slope * x_t + offset))
        variance = ((1 - sigma) * std) ** 2 + sigma**2
        scores.append(-(x_t - (1 - sigma) * mean) / variance)
    real, fake = predictions
    gap = sigma**2 / (1 - sigma) * (scores[1] - scores[0])
    torch.testing.assert_close(fake - real, gap, rtol=0, atol=0.02)

    x0 = torch.randn(9, 1, generator=generator, dtype=torch.float64).requires_grad_()
    dmd_loss(x0, real, fake).backward()
    assert x0.grad is not None
    torch.testing.assert_close(x0.grad, (fake - real) / (x0.detach() - real).abs() / 9, rtol=1e-9, atol=0)


def test_the_critic_learns_the_velocity() -> None:
    """The loss of the best predictor for a constant x0 is 0, and that of zero is the velocity's size."""
    x0 = torch.full((4096, 1, 1, 1, 1), 2.0)

    def exact(x_t: Tensor, timesteps: Tensor) -> Tensor:
        sigma = (timesteps / 1000).view(-1, 1, 1, 1, 1)
        return (x_t - x0) / sigma

    generator = torch.Generator().manual_seed(0)
    assert float(critic_loss(exact, x0, 5.0, generator)) == pytest.approx(0, abs=1e-6)
    size = float(critic_loss(lambda x, t: torch.zeros_like(x), x0, 5.0, generator))
    assert size == pytest.approx(1 + 2**2, rel=0.05)


def settle(inverse_beta: float, seeds: int = 300, batch: int = 4, steps: int = 150) -> float:
    """Share of one-mode students that end in the high-reward mode of a two-mode teacher.

    In 16 dimensions, all alike. Teacher: half N(-1, 0.4), half N(1, 0.4). Student: N(m, 0.5), its critic
    exact. Reward: tanh of the mean. Every student begins at m = 0 and has its own samples.
    """
    generator = torch.Generator().manual_seed(0)
    mean = torch.zeros(seeds, dtype=torch.float64, requires_grad=True)
    shape = (seeds, batch, 16)

    def posterior(x_t: Tensor, of_mean: Tensor | float, std: float, s: Tensor) -> tuple[Tensor, Tensor]:
        """E[x0 | x_t] under N(of_mean, std), and log p(x_t)."""
        variance = ((1 - s) * std) ** 2 + s**2
        off = x_t - (1 - s) * of_mean
        return of_mean + (1 - s) * std**2 / variance * off, -0.5 * (off**2 / variance).sum(-1, keepdim=True)

    for step in range(steps):
        x0 = mean[:, None, None] + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        x = x0.detach()
        s = (draw_timesteps(seeds * batch, 1.0, generator) / 1000).view(seeds, batch, 1).double()
        x_t = (1 - s) * x + s * torch.randn(shape, generator=generator, dtype=torch.float64)
        modes = [posterior(x_t, at, 0.4, s) for at in (-1.0, 1.0)]
        share = torch.stack([log for _, log in modes]).softmax(0)
        real = share[0] * modes[0][0] + share[1] * modes[1][0]
        fake, _ = posterior(x_t, mean.detach()[:, None, None], 0.5, s)
        weights = reward_weights(torch.tanh(x.mean(2)), inverse_beta)
        loss = dmd_loss(x0.flatten(0, 1), real.flatten(0, 1), fake.flatten(0, 1), weights.flatten())
        (gradient,) = torch.autograd.grad(loss, mean)
        with torch.no_grad():
            scale = weights.mean(1)  # so that a larger 1/b is not just a larger learning rate
            mean -= 0.5 * (1 - step / steps) * seeds * gradient / scale
    assert float((mean.detach().abs() - 1).abs().median()) < 0.2  # they did settle in a mode
    return float((mean > 0).float().mean())


def test_a_one_mode_student_settles_in_the_rewarded_mode_more_often_as_the_weight_grows() -> None:
    shares = [settle(inverse_beta) for inverse_beta in (0.0, 1.0, 2.0, 5.0)]
    assert shares[0] == pytest.approx(0.5, abs=0.08)
    assert all(more > less + 0.03 for less, more in itertools.pairwise(shares))
    assert shares[-1] > 0.7


def settle_mean(std: float, inverse_beta: float, batch: int = 512, steps: int = 200) -> float:
    """Where the mean of a student N(m, std) ends, its width fixed and its critic exact.

    Teacher: N(0, 1). Reward: the mean of 8 dimensions, all alike, with deviation 1 under the teacher.
    """
    generator = torch.Generator().manual_seed(0)
    mean, tail = torch.zeros((), dtype=torch.float64), []

    def prediction(x_t: Tensor, of_mean: Tensor | float, of_std: float, s: Tensor) -> Tensor:
        variance = ((1 - s) * of_std) ** 2 + s**2
        return of_mean + (1 - s) * of_std**2 / variance * (x_t - (1 - s) * of_mean)

    for step in range(steps):
        draws = torch.randn(2, batch, 8, generator=generator, dtype=torch.float64)
        x0 = mean + std * draws[0]
        s = (draw_timesteps(batch, 1.0, generator) / 1000).view(batch, 1).double()
        x_t = (1 - s) * x0 + s * draws[1]
        x0 = x0.requires_grad_()
        weights = reward_weights(x0.detach().mean(1) * math.sqrt(8), inverse_beta)
        loss = dmd_loss(
            x0, prediction(x_t, 0.0, 1.0, s), prediction(x_t, mean, std, s), weights / weights.mean()
        )
        (gradient,) = torch.autograd.grad(loss, x0)
        mean = mean - 0.2 * 8 * gradient.mean(1).sum()
        if step >= steps // 2:
            tail.append(float(mean))
    return sum(tail) / len(tail)


@pytest.mark.parametrize(("std", "sign"), [(0.5, 1), (2.0, -1)])
def test_the_weight_raises_a_student_narrower_than_its_teacher_and_lowers_a_wider_one(
    std: float, sign: int
) -> None:
    """Samples far from the mean are pulled outwards or inwards; the weight listens to the rewarded ones."""
    ends = [settle_mean(std, inverse_beta) for inverse_beta in (0.0, 1.0, 2.0)]
    assert abs(ends[0]) < 0.02
    assert ends[1] * sign > 0.02
    assert ends[2] * sign > 1.2 * ends[1] * sign


def test_a_student_as_wide_as_its_teacher_stays_where_it_matches() -> None:
    assert abs(settle_mean(1.0, 2.0)) < 0.02


def test_a_weight_does_not_move_an_optimum_that_every_sample_shares() -> None:
    """Where critic and teacher agree, the gradient is 0 under any weight: the reward adds no force."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(8, 3, generator=generator).requires_grad_()
    same = torch.randn(8, 3, generator=generator)
    dmd_loss(x0, same, same, reward_weights(torch.randn(8, generator=generator), 5.0)).backward()
    assert x0.grad is not None
    assert x0.grad.abs().max() == 0
