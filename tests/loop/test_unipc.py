"""UniPC between the calls of a chunk, with diffusers as the oracle."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.loop.sampler import ChunkLoop, FewStepSampler, SeededNoise
from tests.support.tiny import CONFIG, SIZE, network, prompts

LATENTS = (2, 3, 4, 4, 6)


def flow(latents: Tensor, timestep: float) -> Tensor:
    """Plays a network: smooth, and another one at every level."""
    return torch.sin(2 * latents) + timestep / 1000


def no_noise() -> Tensor:
    raise AssertionError("UniPC draws no noise between calls")


def of_diffusers(steps: Sequence[int], shift: float, latents: Tensor) -> tuple[Tensor, list[float]]:
    """What diffusers' scheduler makes of the same network: clean latents and the levels of the calls."""
    scheduler: Any = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, solver_order=2
    )
    scheduler.set_timesteps(sigmas=np.array(steps) / 1000)
    scheduler.set_begin_index(0)  # whole numbers may be twice among its timesteps
    levels = scheduler.sigmas[:-1].tolist()
    for level, timestep in zip(levels, scheduler.timesteps):
        # The network is told the level itself; diffusers' timesteps are whole numbers.
        latents = scheduler.step(flow(latents, 1000 * level), timestep, latents).prev_sample
    return latents, levels


@given(
    steps=st.sets(st.integers(2, 1000), min_size=1, max_size=8),
    shift=st.sampled_from((1.0, 3.0, 5.0, 8.0)),
    seed=st.integers(0, 99),
)
def test_as_diffusers(steps: set[int], shift: float, seed: int) -> None:
    listed = tuple(sorted(steps, reverse=True))
    sampler = FewStepSampler(StreamConfig(denoising_steps=listed, shift=shift, sampler="unipc"))
    noise = torch.randn(LATENTS, generator=torch.Generator().manual_seed(seed))
    expected, levels = of_diffusers(listed, shift, noise)
    torch.testing.assert_close(sampler.sigmas, torch.tensor(levels), atol=1e-6, rtol=0)
    # Its own levels as timesteps, as the play network is told them.
    found = sampler.sample(lambda x, t: flow(x, min(t, 1000 * levels[0])), noise, no_noise)
    # Adjacent levels divide by the difference of their logs, which float32 rounds.
    gap = min((a - b for a, b in itertools.pairwise(listed)), default=1000)
    torch.testing.assert_close(found, expected, atol=2e-4 if gap > 20 else 2e-2, rtol=0)


def test_the_four_steps_of_a_student() -> None:
    steps = (1000, 750, 500, 250)
    noise = torch.randn(LATENTS, generator=torch.Generator().manual_seed(0))
    sampler = FewStepSampler(StreamConfig(denoising_steps=steps, sampler="unipc"))
    expected, _ = of_diffusers(steps, 5.0, noise)
    torch.testing.assert_close(sampler.sample(flow, noise, no_noise), expected, atol=1e-5, rtol=0)


def test_it_is_more_exact_than_one_of_order_one() -> None:
    """Against the flow's own path, in small steps of Euler."""
    noise = torch.randn(LATENTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine = torch.linspace(1 - 1e-6, 0, 20001, dtype=torch.float64).tolist()
    path = noise
    for a, b in itertools.pairwise(fine):
        path = path + (b - a) * torch.sin(2 * path)
    steps = tuple(range(1000, 0, -100))
    sampler = FewStepSampler(StreamConfig(denoising_steps=steps, shift=1.0, sampler="unipc"))
    found = sampler.sample(lambda x, _: torch.sin(2 * x), noise, no_noise)
    euler = noise
    for a, b in itertools.pairwise([step / 1000 for step in (*steps, 0)]):
        euler = euler + (b - a) * torch.sin(2 * euler)
    assert (found - path).abs().mean() < 0.25 * (euler - path).abs().mean()


def test_a_chunk_may_start_at_a_step_and_is_made_again_to_the_bit() -> None:
    stream = StreamConfig(sampler="unipc")
    shape = (stream.chunk_frames, CONFIG.in_channels, *SIZE)
    model = network(dtype=torch.float32)[0]
    rollout = TorchRollout(model, stream, 2, SIZE, prompts(2).float())
    loop = ChunkLoop(rollout, stream, SeededNoise([0, 1], shape), start=lambda draw: (draw(), 2))
    loop.next_chunk()
    made = loop.next_chunk()
    assert torch.equal(loop.redo_chunk(), made)
    assert made.isfinite().all()


def test_a_shift_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="shift 100000 leaves unipc no room between the steps; lower it"):
        FewStepSampler(StreamConfig(denoising_steps=(1000, 999), shift=1e5, sampler="unipc"))


@pytest.mark.parametrize("name", ["euler", "", None, 3, ["unipc"]])
def test_a_sampler_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"sampler must be renoise or unipc, got "):
        StreamConfig(sampler=name)
