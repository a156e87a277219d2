"""Live video in: frames of a source are encoded, made as noisy as the strength says, and restyled."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import pyrf
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.loop.sampler import FewStepSampler
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.feeds import FeedClosedError
from pyrf.streaming.lockstep import next_chunks
from pyrf.streaming.restyle import MOTION_FULL, SourceControl, SourceStart
from pyrf.video.writer import Frames
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.taking import BLUE, RED


@pytest.fixture(scope="module")
def clip(pipe: StreamingPipeline) -> Frames:
    """As long as four chunks."""
    return pipe("a yellow square", num_frames=pipe.num_frames_of(4), seed=9).frames


def joined(stream: Any, chunks: int = 4) -> Frames:
    with stream:
        return np.concatenate([next(stream).frames for _ in range(chunks)], axis=-4)


def reconstruction(pipe: StreamingPipeline, clip: Frames) -> Frames:
    latents = pipe.codec.encode(torch.from_numpy(clip)[None])
    return pipe.codec.decoder().decode(latents)[0].numpy()


def test_strength_0_shows_what_the_codec_makes_of_the_source(pipe: StreamingPipeline, clip: Frames) -> None:
    found = joined(pipe.stream(RED, source=clip, strength=0))
    difference = np.abs(found.astype(int) - reconstruction(pipe, clip))
    assert difference.max() <= 1  # chunks of other sizes are rounded otherwise


def test_strength_1_is_the_prompt_alone(pipe: StreamingPipeline, clip: Frames) -> None:
    found = joined(pipe.stream(RED, 4, source=clip, strength=1))
    assert np.array_equal(found, pipe(RED, num_frames=len(found), seed=4).frames)


def test_the_stronger_the_further_from_the_source(pipe: StreamingPipeline, clip: Frames) -> None:
    base = reconstruction(pipe, clip).astype(float)
    errors = [
        np.abs(joined(pipe.stream(RED, source=clip, strength=s)) - base).mean() for s in (0, 0.1, 0.4, 0.8)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.1 < 1 < errors[-1]


@pytest.mark.parametrize("strength", [0.3, 0.6, 0.9, 0.97])
def test_calls_begin_at_the_strength_and_go_on_with_the_steps_below(
    pipe: StreamingPipeline, clip: Frames, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[float] = []
    denoise = TorchRollout.denoise

    def noting(self: TorchRollout, latents: torch.Tensor, timestep: float) -> torch.Tensor:
        called.append(timestep)
        return denoise(self, latents, timestep)

    monkeypatch.setattr(TorchRollout, "denoise", noting)
    joined(pipe.stream(RED, source=clip, strength=strength), 2)
    own = FewStepSampler(pipe.stream_config).timesteps
    expected = [pytest.approx(1000 * strength), *(t for t in own if t < 1000 * strength)]
    assert called == expected + expected


def test_what_is_mixed_is_noise_and_the_whole_clips_latents(pipe: StreamingPipeline, clip: Frames) -> None:
    control = SourceControl(0.25, follows_motion=False)
    control.set(pyrf.Source(clip).open(pipe.model, HEIGHT, WIDTH))
    start = SourceStart(pipe.model, control, torch.device("cpu"), begins=True)
    latents = pipe.codec.encode(torch.from_numpy(clip)[None])
    frames = pipe.stream_config.chunk_frames
    noise = torch.randn(2, frames, *latents.shape[2:], generator=torch.Generator().manual_seed(0))
    for part in latents.split(frames, 1):
        mixed, level = start(lambda: noise)
        assert level == start.strength == 0.25
        torch.testing.assert_close(mixed, 0.25 * noise + 0.75 * part.expand_as(noise), atol=1e-5, rtol=0)


def test_strength_and_prompt_change_while_it_runs(pipe: StreamingPipeline, clip: Frames) -> None:
    with pipe.stream(RED, 1, source=clip, strength=0.3) as stream:
        first = next(stream)
        stream.strength = 0.8
        stream.set_prompt(BLUE, recache=True)
        second = next(stream)
        stream.set_source(None)
        third = next(stream)
    assert (first.strength, second.strength, third.strength) == (0.3, 0.8, None)
    assert second.prompt == BLUE
    assert second.timing.source > 0
    kept = joined(pipe.stream(RED, 1, source=clip, strength=0.3), 2)
    assert np.array_equal(first.frames, kept[:9])
    assert not np.array_equal(second.frames, kept[9:])


def test_clips_of_a_batch_are_as_alone(pipe: StreamingPipeline, clip: Frames) -> None:
    both = joined(pipe.stream([RED, BLUE], [3, 8], source=clip, strength=0.7), 2)
    for found, prompt, seed in zip(both, (RED, BLUE), (3, 8)):
        alone = joined(pipe.stream(prompt, seed, source=clip, strength=0.7), 2)
        assert np.abs(found.astype(int) - alone).max() <= 2


def test_streams_of_other_strengths_are_computed_together(pipe: StreamingPipeline, clip: Frames) -> None:
    """Those that take the same calls in one batch; one without a source, and one that ends, among them."""

    def streams() -> list[pyrf.Stream]:
        ending = pyrf.Source(clip[:9], at_end="stop")
        return [
            pipe.stream(RED, 1, source=clip, strength=0.7),
            pipe.stream(BLUE, 2, source=clip[::-1], strength=0.7),
            pipe.stream(RED, 3),
            pipe.stream(RED, 4, source=clip, strength=0.2),
            pipe.stream(BLUE, 5, source=ending, strength=0.7),
        ]

    together = streams()
    chunks = [next_chunks(together) for _ in range(2)]
    assert chunks[1][-1] is None
    assert together[-1].closed
    assert not any(stream.closed for stream in together[:-1])
    for place, stream in enumerate(streams()[:-1]):
        for made in chunks:
            chunk = made[place]
            assert isinstance(chunk, pyrf.Chunk)
            assert np.abs(chunk.frames.astype(int) - next(stream).frames).max() <= 2
        stream.close()


def test_a_source_that_ends_leaves_the_prompt_alone_or_ends_the_stream(
    pipe: StreamingPipeline, clip: Frames
) -> None:
    stopping = pipe.stream(RED, source=pyrf.Source(clip[:15], at_end="stop"), strength=0.5)
    chunks = list(stopping)
    assert [len(chunk.frames) for chunk in chunks] == [9, 12]  # the last one held to the chunk's end
    assert stopping.closed
    with pipe.stream(RED, source=pyrf.Source(clip[:9]), strength=0.5) as stream:
        assert [next(stream).strength for _ in range(3)] == [0.5, None, None]


def test_a_source_may_come_late_and_after_a_start_video(pipe: StreamingPipeline, clip: Frames) -> None:
    """Its encoder's memory then begins with its first frame, and no frame of it is lost."""
    for start in (None, clip[:21]):
        with pipe.stream(RED, video=start) as stream:
            next(stream)
            stream.strength = 0
            stream.set_source(pyrf.Source(clip))
            frames = next(stream).frames
        assert frames.shape == (12, HEIGHT, WIDTH, 3)
        held = reconstruction(pipe, np.concatenate([clip[:1], clip[:12]]))[1:]
        assert np.abs(frames[4:].astype(int) - held[4:]).mean() < 16  # the decoder remembers what was before


def test_motion_lowers_the_strength_by_the_formula(pipe: StreamingPipeline) -> None:
    still = np.full((9, HEIGHT, WIDTH, 3), 100, np.uint8)
    moved = np.full((12, HEIGHT, WIDTH, 3), 100, np.uint8)
    moved[3:] += 13
    frames = np.concatenate([still, moved])
    with pipe.stream(RED, source=frames, strength=0.6, follow_motion=True) as stream:
        found = [next(stream).strength for _ in range(2)]
    motion = 13 / 127.5 / MOTION_FULL
    assert found == [pytest.approx(0.6), pytest.approx(0.9 * (0.6 - 0.1 * motion) + 0.1 * 0.6)]


def test_rates_and_sizes_are_fitted(pipe: StreamingPipeline, clip: Frames) -> None:
    large = clip.repeat(2, axis=1).repeat(2, axis=2)
    for given, fps in ((large.repeat(3, axis=0), 48), (large[::2], 8)):
        found = joined(pipe.stream(RED, source=pyrf.Source(given, fps=fps), strength=0), 2)
        expected = clip[:21] if fps == 48 else clip[::2].repeat(2, axis=0)[:21]
        assert np.abs(found.astype(int) - reconstruction(pipe, expected)).max() <= 3


def test_an_async_source_is_asked_in_the_loop_of_its_owner(pipe: StreamingPipeline, clip: Frames) -> None:
    asked: list[Any] = []

    async def frames() -> AsyncIterator[Frames]:
        for frame in clip:
            asked.append(asyncio.get_running_loop())
            yield frame

    async def run() -> list[Frames]:
        async with pipe.stream(RED, source=pyrf.Source(frames(), at_end="stop"), strength=0.4) as stream:
            made = [chunk.frames async for chunk in stream]
        assert set(asked) == {asyncio.get_running_loop()}
        return made

    found = np.concatenate(asyncio.run(run()))
    assert np.array_equal(found, joined(pipe.stream(RED, source=clip, strength=0.4)))
    assert np.array_equal(found, joined(pipe.stream(RED, source=frames(), strength=0.4)))  # without a loop


def test_memory_is_bounded_and_a_wait_ends_with_the_stream(pipe: StreamingPipeline, clip: Frames) -> None:
    given, blocked = 0, threading.Event()

    def endless() -> Iterator[Frames]:
        nonlocal given
        while True:
            given += 1
            yield clip[given % len(clip)]

    with pipe.stream(RED, source=endless(), strength=0) as stream:
        next(stream)
        assert given <= 9 + 16 + 2

    def stuck() -> Iterator[Frames]:
        yield clip[0]
        blocked.wait()

    stream = pipe.stream(RED, source=stuck(), strength=0)
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.extend(stream))
    thread.start()
    stream.close()
    thread.join(300)
    blocked.set()
    assert not thread.is_alive()
    assert ended == []


def test_another_source_ends_the_wait_for_one_that_is_stuck(pipe: StreamingPipeline, clip: Frames) -> None:
    blocked = threading.Event()

    def stuck() -> Iterator[Frames]:
        yield clip[0]
        blocked.wait()

    made: list[pyrf.Chunk] = []
    with pipe.stream(RED, source=stuck(), strength=0) as stream:
        feed = stream._source.current[0]
        assert feed is not None
        thread = threading.Thread(target=lambda: made.append(next(stream)))
        thread.start()
        stream.set_source(clip)
        thread.join(300)
        blocked.set()
    assert made[0].strength == 0
    with pytest.raises(FeedClosedError):
        feed.take(1)


def test_a_stream_that_nobody_holds_lets_its_source_go(pipe: StreamingPipeline, clip: Frames) -> None:
    stream = pipe.stream(RED, source=clip)
    feed = stream._source.current[0]
    assert feed is not None
    del stream
    gc.collect()
    with pytest.raises(FeedClosedError):
        feed.take(1)


def test_what_goes_wrong_in_a_source_is_told(pipe: StreamingPipeline, clip: Frames) -> None:
    def broken() -> Iterator[Frames]:
        yield clip[0]
        raise OSError("the camera was unplugged")

    stream = pipe.stream(RED, source=broken(), strength=0)
    with pytest.raises(OSError, match="unplugged"):
        next(stream)
    assert stream.closed
    with pytest.raises(ValueError, match=r"a frame of the source must be \[H, W, 3\]"):
        next(pipe.stream(RED, source=[np.zeros((8, 8), np.uint8)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": 3}, "source must be an iterator of frames"),
        ({"source": "clip.mp4"}, "iter_frames"),
        ({"source": [], "strength": 1.1}, "strength must lie in 0..1, got 1.1"),
        ({"strength": float("nan")}, "strength must lie in 0..1"),
        ({"strength": "much"}, "strength must lie in 0..1"),
    ],
)
def test_what_is_no_source_is_refused(
    pipe: StreamingPipeline, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipe.stream(RED, **arguments)


def test_other_kinds_of_a_source_are_refused(pipe: StreamingPipeline) -> None:
    with pytest.raises(ValueError, match="at_end must be"):
        pyrf.Source([], at_end="loop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fps of the source"):
        pyrf.Source([], fps=0)
    with pipe.stream(RED) as stream, pytest.raises(ValueError, match="strength"):
        stream.strength = -0.1
    with pytest.raises(ValueError, match="closed"):
        stream.strength = 0.5
