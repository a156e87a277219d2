"""The noise schedule against golden tables, for shifts 5 and 8."""

import numpy as np
import pytest
import torch

from pyrf.loop.schedule import FlowSchedule, add_noise, to_x0, warp
from tests.support.golden import tensors


@pytest.mark.parametrize("shift", [5, 8])
def test_golden(shift):
    data = {k.removeprefix(f"shift{shift}."): v for k, v in tensors("scheduler").items()}
    schedule = FlowSchedule(shift)
    levels = schedule.sigma(data["add_noise.t"]).view(-1, 1, 1, 1)
    for name, got in (
        ("sigmas", schedule.sigmas),
        ("timesteps", schedule.timesteps),
        ("warped_1000_750_500_250", schedule.listed((1000, 750, 500, 250))),
        ("add_noise.sigma_used", schedule.sigma(data["add_noise.t"])),
        ("add_noise.out", add_noise(data["add_noise.x"], data["add_noise.noise"], levels)),
    ):
        expected = data[name]
        torch.testing.assert_close(got, expected, atol=3e-5 * expected.abs().max().item(), rtol=0, msg=name)


def test_sigma_at_zero_is_the_last_entry():
    schedule = FlowSchedule(5.0)
    assert schedule.sigma(torch.tensor(0.0)) == schedule.sigmas[-1] > 0


def test_x0_inverts_the_flow():
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 3, 4, 4, 4, generator=generator)
    for sigma in (torch.tensor(0.7), torch.rand(2, 3, generator=generator)):
        sigma = sigma.view(*sigma.shape, 1, 1, 1)
        x_t = add_noise(x0, noise, sigma)
        torch.testing.assert_close(to_x0(x_t, noise - x0, sigma), x0, atol=2e-6, rtol=0)


def test_x0_is_rounded_once():
    """In float64 until its end, as in the official code: a float32 product would round before."""
    generator = torch.Generator().manual_seed(0)
    x_t, flow = torch.randn(2, 10_000, generator=generator)
    sigma = torch.tensor(0.9375)
    exact = x_t.numpy().astype(np.float64) - float(sigma) * flow.numpy().astype(np.float64)
    assert np.array_equal(to_x0(x_t, flow, sigma).numpy(), exact.astype(np.float32))


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_a_warp_keeps_the_ends_and_leans_to_noise(shift):
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    warped = warp(u, shift)
    assert warped[[0, -1]].tolist() == [0, 1]
    assert (warped.diff() > 0).all()
    assert (warped >= u - 1e-12).all()
    assert warp(0.5, shift) == pytest.approx(float(warped[5]))


@pytest.mark.parametrize("steps", [(0,), (1001,), (1000, -1)])
def test_listed_steps_refuse_those_outside_the_table(steps):
    with pytest.raises(ValueError, match=r"1\.\.1000"):
        FlowSchedule(5.0).listed(steps)


def test_refuses_a_shift_that_is_not_positive():
    with pytest.raises(ValueError, match="shift"):
        FlowSchedule(0.0)
