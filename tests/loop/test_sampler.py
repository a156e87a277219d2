"""The chunk loop: its levels, seeds, given beginnings, and chunks that start or are made again."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StreamConfig
from pyrf.loop.held import Timestep
from pyrf.loop.sampler import ChunkLoop, FewStepSampler, SeededNoise
from tests.support.tiny import CONFIG, SIZE, DoubleNoise, network, prompts

STREAM = StreamConfig(sink_alpha=0.9)
SHAPE = (STREAM.chunk_frames, CONFIG.in_channels, *SIZE)


def stream(seeds, prompt_embeds, chunks=5, dtype=torch.float32):
    """Latents of a stream, [B, chunks * F, C, H, W]."""
    rollout = TorchRollout(network(dtype=dtype)[0], STREAM, len(seeds), SIZE, prompt_embeds.to(dtype))
    noise = SeededNoise(seeds, SHAPE)
    loop = ChunkLoop(rollout, STREAM, lambda: noise().to(dtype))
    return torch.cat([loop.next_chunk() for _ in range(chunks)], 1)


def test_each_video_of_a_batch_depends_on_its_own_seed_and_prompt_only():
    both = prompts(2)
    together = stream([3, 4], both)
    for i, seed in enumerate((3, 4)):
        alone = stream([seed], both[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_one_prompt_serves_all_videos():
    one = prompts(1)
    each = one.expand(2, -1, -1)
    torch.testing.assert_close(stream([3, 4], one), stream([3, 4], each), atol=1e-5, rtol=0)


def test_same_seed_same_bytes():
    assert torch.equal(stream([7], prompts()), stream([7], prompts()))


def test_a_given_beginning_goes_on_as_the_stream_it_came_from():
    """Cached keys depend on clean latents only, so a stream resumes from its own latents."""
    model = network()[0]

    def start():
        rollout = TorchRollout(model, STREAM, 1, SIZE, prompts())
        return ChunkLoop(rollout, STREAM, DoubleNoise([1], SHAPE))

    whole = start()
    latents = [whole.next_chunk() for _ in range(6)]
    resumed = start()
    resumed.prefill(torch.cat(latents[:5], 1))
    for _ in range(5 * len(STREAM.denoising_steps)):
        resumed.draw()
    torch.testing.assert_close(resumed.next_chunk(), latents[5], atol=1e-12, rtol=0)


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_refuses_a_beginning_that_does_not_fill_chunks(frames):
    loop = TorchRollout(network()[0], STREAM, 1, SIZE, prompts()).loop([0])
    with pytest.raises(ValueError, match="multiple of 3"):
        loop.prefill(torch.zeros(1, frames, *SHAPE[1:]))


STREAMS = st.builds(
    StreamConfig,
    denoising_steps=st.sets(st.integers(1, 1000), min_size=1, max_size=8).map(
        lambda steps: tuple(sorted(steps, reverse=True))
    ),
    shift=st.floats(0.1, 20),
)


class Calls:
    """Plays a network whose flow is a function of what it sees; keeps the timesteps of its calls."""

    def __init__(self) -> None:
        self.inputs: list[torch.Tensor] = []
        self.timesteps: list[Timestep] = []

    def begin_chunk(self) -> None:
        self.ended = False

    def denoise(self, latents: torch.Tensor, timestep: Timestep) -> torch.Tensor:
        self.inputs.append(latents)
        self.timesteps.append(timestep)
        assert isinstance(timestep, float)
        return torch.sin(latents) + timestep / 1000

    def clean(self, latents: torch.Tensor) -> None:
        self.ended = True

    def reopen_chunk(self) -> None:
        self.ended = False


@given(stream=STREAMS)
def test_levels_fall_and_the_last_call_is_at_the_lowest(stream: StreamConfig) -> None:
    sampler, calls = FewStepSampler(stream), Calls()
    draws = SeededNoise([0], (2, 1, 2, 2))
    sampler.sample(calls.denoise, draws(), draws)
    assert calls.timesteps == sampler.timesteps
    assert len(sampler.timesteps) == len(stream.denoising_steps)
    levels = sampler.sigmas.tolist()
    for falling in (sampler.timesteps, levels):
        assert all(high > low for high, low in itertools.pairwise(falling))
    assert 0 < levels[-1] <= levels[0] <= 1
    if stream.denoising_steps[0] == 1000:
        assert levels[0] == pytest.approx(1)  # pure noise


@given(stream=STREAMS, data=st.data())
def test_a_chunk_that_starts_at_a_step_is_the_tail_of_one_from_noise(
    stream: StreamConfig, data: st.DataObject
) -> None:
    sampler, whole, tail = FewStepSampler(stream), Calls(), Calls()
    first = data.draw(st.integers(0, len(stream.denoising_steps) - 1))
    noise = SeededNoise([0], (2, 1, 2, 2))
    draws = [noise() for _ in stream.denoising_steps]
    expected = sampler.sample(whole.denoise, draws[0], iter(draws[1:]).__next__)
    later = FewStepSampler(stream, level=float(sampler.sigmas[first]))
    found = later.sample(tail.denoise, whole.inputs[first], iter(draws[first + 1 :]).__next__)
    assert torch.equal(later.sigmas, sampler.sigmas[first:])
    assert tail.timesteps == pytest.approx(whole.timesteps[first:])
    torch.testing.assert_close(found, expected)


@given(stream=STREAMS, level=st.floats(0, 1, width=32), first=st.booleans())
def test_nothing_is_made_noisier_than_it_came(stream: StreamConfig, level: float, first: bool) -> None:
    """Calls begin at the level of what is given, and go on with the student's own steps below it."""
    own = FewStepSampler(stream, first=first)
    sampler, calls = FewStepSampler(stream, first=first, level=level), Calls()
    draws = SeededNoise([0], (2, 1, 2, 2))
    given = draws()
    made = sampler.sample(calls.denoise, given, draws)
    if level >= own.sigmas[0]:
        assert calls.timesteps == own.timesteps
    elif np.float32(level) == 0:
        assert made is given
        assert calls.timesteps == []
    else:
        assert calls.timesteps[0] == pytest.approx(1000 * level)
        assert calls.timesteps[1:] == [t for t, s in zip(own.timesteps, own.sigmas) if s < np.float32(level)]
        assert torch.equal(sampler.sigmas[1:], own.sigmas[len(own.sigmas) - len(sampler.sigmas) + 1 :])


def test_an_end_of_the_source_leaves_the_loop_as_it_was() -> None:
    calls = Calls()

    def ended(draw):
        raise EOFError

    loop = ChunkLoop(calls, STREAM, SeededNoise([0], SHAPE), ended)
    with pytest.raises(EOFError):
        loop.next_chunk()
    assert loop.chunks == 0
    assert not hasattr(calls, "ended")  # no chunk is under way


def test_a_loop_starts_its_chunks_where_it_is_told() -> None:
    """And makes a chunk again from the same start, which is asked for once."""
    calls, started = Calls(), []

    def start(draw):
        started.append(0.5 * draw())
        return started[-1], 0.9

    loop = ChunkLoop(calls, STREAM, SeededNoise([0], SHAPE), start)
    made = loop.next_chunk()
    assert calls.timesteps == [pytest.approx(900), *loop.sampler(0).timesteps[2:]]
    assert torch.equal(loop.redo_chunk(), made)
    assert len(started) == 1
    assert not torch.equal(loop.next_chunk(), made)
    assert len(started) == 2


def test_who_watches_is_told_of_each_call_and_may_give_the_chunk_up() -> None:
    calls = Calls()
    seen: list[str] = []
    loop = ChunkLoop(calls, STREAM, SeededNoise([0], SHAPE))
    loop.next_chunk(seen.append)
    assert seen == 4 * ["denoise"] + ["clean"]

    def give_up(call: str) -> None:
        if len(calls.inputs) == 6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        loop.next_chunk(give_up)
    assert len(calls.inputs) == 6
    assert not calls.ended


def test_only_a_made_chunk_is_made_again() -> None:
    with pytest.raises(RuntimeError, match="comes after"):
        ChunkLoop(Calls(), STREAM, SeededNoise([0], SHAPE)).redo_chunk()


def test_seeds_are_one_per_video() -> None:
    rollout = TorchRollout(network()[0], STREAM, 1, SIZE, prompts())
    with pytest.raises(ValueError, match="seeds must be 1, one per video, got 2"):
        rollout.loop([0, 1])


def test_a_first_chunk_may_have_steps_of_its_own() -> None:
    """Also when it is made again; a stream that is given a past has no first chunk."""
    stream = replace(STREAM, denoising_steps=(1000, 500), first_chunk_steps=(1000, 750, 500, 250))
    first, later = FewStepSampler(stream, first=True).timesteps, FewStepSampler(stream).timesteps
    assert (len(first), len(later)) == (4, 2)
    calls = Calls()
    loop = ChunkLoop(calls, stream, SeededNoise([0], SHAPE))
    made = loop.next_chunk()
    assert torch.equal(loop.redo_chunk(), made)
    loop.next_chunk()
    assert calls.timesteps == first + first + later
    calls = Calls()
    loop = ChunkLoop(calls, stream, SeededNoise([0], SHAPE))
    loop.prefill(torch.zeros(1, stream.chunk_frames, *SHAPE[1:]))
    loop.next_chunk()
    assert calls.timesteps == later


def test_held_frames_are_clean_in_every_call():
    """The oracle is the whole network with a timestep per frame; the chunk comes out with them in place."""
    model = network()[0]
    rollout = TorchRollout(model, STREAM, 2, SIZE, prompts(2))
    draws = DoubleNoise([1, 2], SHAPE)
    given = draws()[:, :1]
    loop = ChunkLoop(rollout, STREAM, DoubleNoise([3, 4], SHAPE))
    loop.hold(given)
    made = loop.next_chunk()
    assert torch.equal(made[:, :1], given)

    noise, prompt = DoubleNoise([3, 4], SHAPE), model.encode_prompt(prompts(2))
    sampler = loop.sampler(0)

    def predict(latents: torch.Tensor, timestep: float) -> torch.Tensor:
        times = torch.tensor([[0.0] + 2 * [timestep]], dtype=torch.float64).expand(2, -1)
        return model(torch.cat((given, latents[:, 1:]), 1), times, prompt)

    expected = sampler.sample(predict, noise(), noise)
    torch.testing.assert_close(made[:, 1:], expected[:, 1:], atol=1e-9, rtol=0)
    assert torch.equal(loop.redo_chunk(), made)
    calls = Calls()
    loop = ChunkLoop(calls, STREAM, SeededNoise([0], SHAPE))
    loop.hold(torch.zeros(1, *SHAPE))
    assert not loop.next_chunk().any()
    assert not calls.timesteps
    loop.next_chunk()  # which holds nothing
    assert calls.timesteps == loop.sampler(1).timesteps


@pytest.mark.parametrize(
    "latents", [torch.zeros(1, 4, *SHAPE[1:]), torch.zeros(1, 0, *SHAPE[1:]), torch.zeros(3)]
)
def test_what_does_not_fit_a_chunk_is_not_held(latents):
    loop = ChunkLoop(Calls(), STREAM, SeededNoise([0], SHAPE))
    with pytest.raises(ValueError, match=r"held latents must be \[B, F, C, H, W\] with F in 1\.\.3"):
        loop.hold(latents)
    with pytest.raises(ValueError, match="held latents"):
        loop.hold(torch.full((1, 1, *SHAPE[1:]), torch.nan))
