"""The noise schedule against golden tables, for shifts 5 and 8."""

import pytest
import torch

from pyrf.loop.schedule import FlowSchedule
from tests.support.golden import tensors


@pytest.mark.parametrize("shift", [5, 8])
def test_golden(shift):
    data = {k.removeprefix(f"shift{shift}."): v for k, v in tensors("scheduler").items()}
    schedule = FlowSchedule(shift)
    for name, got in (
        ("sigmas", schedule.sigmas),
        ("timesteps", schedule.timesteps),
        ("training_weight", schedule.training_weight(schedule.timesteps)),
        ("warped_1000_750_500_250", schedule.warp((1000, 750, 500, 250))),
        ("add_noise.sigma_used", schedule.sigma(data["add_noise.t"])),
        (
            "add_noise.out",
            schedule.add_noise(data["add_noise.x"], data["add_noise.noise"], data["add_noise.t"]),
        ),
    ):
        expected = data[name]
        torch.testing.assert_close(got, expected, atol=3e-5 * expected.abs().max().item(), rtol=0, msg=name)


def test_sigma_at_zero_is_the_last_entry():
    schedule = FlowSchedule(5.0)
    assert schedule.sigma(torch.tensor(0.0)) == schedule.sigmas[-1] > 0


def test_x0_inverts_the_flow():
    schedule = FlowSchedule(5.0)
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 3, 4, 4, 4, generator=generator)
    for timesteps in (torch.tensor(700.0), torch.tensor([900.0, 100.0]), torch.rand(2, 3) * 1000):
        x_t = schedule.add_noise(x0, noise, timesteps)
        torch.testing.assert_close(schedule.to_x0(x_t, noise - x0, timesteps), x0, atol=2e-6, rtol=0)


@pytest.mark.parametrize("steps", [(0,), (1001,), (1000, -1)])
def test_warp_refuses_steps_outside_the_table(steps):
    with pytest.raises(ValueError, match=r"1\.\.1000"):
        FlowSchedule(5.0).warp(steps)


def test_refuses_a_shift_that_is_not_positive():
    with pytest.raises(ValueError, match="shift"):
        FlowSchedule(0.0)
