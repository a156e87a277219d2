"""What streams promise: chunks and their times, prompts that change, memory, errors."""

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from pyrf.backends.base import OverlappedDecoder
from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from pyrf.streaming.chunk import Clock
from pyrf.streaming.state import StreamState
from tests.support.overlapped import overlap_decoders
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.taking import BLUE, RED, frames_of, take


def test_a_clock_leaves_out_what_was_launched_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the clean call's time would hold that of the denoise calls, which the host does not wait for."""
    now, launched = [100.0], [5.0]

    def wait(_: torch.device) -> None:
        now[0] += launched[0]
        launched[0] = 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock(torch.device("cuda"))
    launched[0] = 1.0
    assert (clock.lap(), clock.total()) == (1.0, 1.0)


def state_of(stream: Stream) -> StreamState:
    """What a stream that has begun holds."""
    assert stream._state is not None
    return stream._state


def test_chunks_of_a_stream(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED) as stream:
        chunks = take(stream, 6)
    assert [chunk.index for chunk in chunks] == list(range(6))
    assert [len(chunk.frames) for chunk in chunks] == [9, 12, 12, 12, 12, 12]
    for chunk in chunks:
        assert chunk.prompt == RED
        assert chunk.frames.dtype == np.uint8
        assert chunk.frames.flags.c_contiguous
        timing = chunk.timing
        stages = [stage for stage in (timing.denoise, timing.clean, timing.decode) if stage is not None]
        assert len(stages) == 3
        assert min(stages) > 0
        assert timing.prompt + sum(stages) <= timing.total * (1 + 1e-6)
    assert chunks[0].timing.prompt > 0
    for count in (1, 2, 6):
        assert pipe.num_frames_of(count) == sum(len(chunk.frames) for chunk in chunks[:count])


def test_stages_that_overlap_have_no_times_of_their_own(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pipe(RED, num_frames=33).frames
    overlap_decoders(pipe, monkeypatch)
    with pipe.stream(RED) as stream:
        chunks = take(stream, 3)
        assert isinstance(state_of(stream)._decoder, OverlappedDecoder)
    assert np.array_equal(frames_of(chunks), plain)
    for chunk in chunks:
        timing = chunk.timing
        assert (timing.denoise, timing.clean, timing.decode) == (None, None, None)
        assert timing.total > 0


def test_streams_side_by_side_do_not_meet(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=1) as one, pipe.stream(BLUE, seed=2) as two:
        pairs = [(next(one), next(two)) for _ in range(5)]
    assert np.array_equal(frames_of([a for a, _ in pairs]), pipe(RED, num_frames=57, seed=1).frames)
    assert np.array_equal(frames_of([b for _, b in pairs]), pipe(BLUE, num_frames=57, seed=2).frames)


def test_streams_in_threads_do_not_meet(pipe: StreamingPipeline) -> None:
    expected = pipe(RED, num_frames=117, seed=1).frames
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(lambda: frames_of(take(pipe.stream(RED, seed=1), 10))) for _ in range(3)]
        for job in jobs:
            assert np.array_equal(job.result(), expected)


def test_batch_chunks(pipe: StreamingPipeline) -> None:
    with pipe.stream([RED, BLUE], seed=[0, 1]) as stream:
        chunk = next(stream)
        assert chunk.frames.shape == (2, 9, HEIGHT, WIDTH, 3)
        assert chunk.prompt == (RED, BLUE)
        stream.prompt = BLUE
        assert stream.prompt == (BLUE, BLUE)  # type: ignore[comparison-overlap]  # not what was assigned
        stream.prompt = [BLUE, RED]
        assert next(stream).prompt == (BLUE, RED)
        with pytest.raises(ValueError, match="has 2 prompts, got 1"):
            stream.prompt = [RED]


def test_prompt_switch_takes_effect_at_the_next_chunk(pipe: StreamingPipeline) -> None:
    steady = pipe(RED, num_frames=57, seed=5).frames
    with pipe.stream(RED, seed=5) as stream:
        chunks = take(stream, 2)
        stream.prompt = "a green square"
        stream.prompt = BLUE  # the last one counts
        assert stream.prompt == BLUE
        assert chunks[-1].prompt == RED
        chunks += take(stream, 3)
    assert [chunk.prompt for chunk in chunks] == [RED, RED, BLUE, BLUE, BLUE]
    frames = frames_of(chunks)
    assert np.array_equal(frames[:21], steady[:21])
    assert not np.array_equal(frames[21:33], steady[21:33])
    assert [chunk.timing.prompt > 0 for chunk in chunks] == [True, False, True, False, False]


def test_switch_to_the_same_prompt_changes_nothing(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=5) as stream:
        chunks = take(stream, 2)
        stream.prompt = RED
        chunks += take(stream, 3)
    assert np.array_equal(frames_of(chunks), pipe(RED, num_frames=57, seed=5).frames)


def test_recache_changes_what_the_past_says(pipe: StreamingPipeline) -> None:
    def switched(recache: bool) -> np.ndarray:
        with pipe.stream(RED, seed=5) as stream:
            chunks = take(stream, 4)
            stream.set_prompt(BLUE, recache=recache)
            return frames_of(chunks + take(stream, 2))

    plain, recached = switched(False), switched(True)
    assert np.array_equal(plain[:45], recached[:45])
    assert not np.array_equal(plain[45:], recached[45:])


def test_prompts_assigned_from_other_threads(pipe: StreamingPipeline) -> None:
    stop = threading.Event()
    seen = set()
    with pipe.stream(RED) as stream:

        def assign(prompt: str) -> None:
            while not stop.wait(1e-4):  # without a pause the model's thread hardly gets the interpreter
                stream.prompt = prompt

        threads = [threading.Thread(target=assign, args=(prompt,)) for prompt in (RED, BLUE)]
        for thread in threads:
            thread.start()
        try:
            seen = {chunk.prompt for chunk in take(stream, 20)}
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        stream.prompt = "a green square"
        assert next(stream).prompt == "a green square"
    assert seen <= {RED, BLUE}


def live_bytes() -> int:
    """Bytes of all live tensors, each storage once."""
    gc.collect()
    sizes = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and not thing.is_mkldnn:  # that has no storage
            sizes[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(sizes.values())


def test_leaving_the_context_frees_the_memory(pipe: StreamingPipeline) -> None:
    take(pipe.stream(RED), 1)  # whatever the network keeps for good, it has now
    before = live_bytes()
    with pipe.stream(RED) as stream:
        take(stream, 4)
        rollout = weakref.ref(state_of(stream).rollout)
        held = live_bytes()
    config, slots = pipe.model_config, pipe.stream_config.slots
    tokens = 3 * (HEIGHT // 16) * (WIDTH // 16)
    cache = 2 * 4 * config.num_layers * slots * tokens * config.dim
    assert held - before >= cache
    assert rollout() is None
    assert live_bytes() == before
    with pytest.raises(StopIteration):
        next(stream)


def test_close_ends_every_kind_of_iteration(pipe: StreamingPipeline) -> None:
    stream = pipe.stream(RED)
    for chunk in stream:
        if chunk.index == 1:
            stream.close()
    assert chunk.index == 1
    assert list(stream) == []
    stream.close()

    async def drain() -> list[Chunk]:
        return [chunk async for chunk in stream]

    assert asyncio.run(drain()) == []


def test_closing_gives_up_the_chunk_under_way(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = pipe.stream(RED)
    next(stream)
    inner = state_of(stream).rollout
    original, calls, closers = inner.denoise, [], []

    def denoise(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        closers.append(threading.Thread(target=stream.close))
        closers[-1].start()
        while not stream.closed:
            closers[-1].join(0.01)
        return original(*arguments)

    monkeypatch.setattr(inner, "denoise", denoise)
    assert list(stream) == []
    assert len(calls) == 1
    closers[0].join()
    assert stream._state is None


def test_an_error_closes_the_stream(pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe.stream(RED) as stream:
        next(stream)

        def fail(*_: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(state_of(stream)._decoder, "decode", fail)
        with pytest.raises(MemoryError):
            next(stream)
        assert stream._state is None
        assert list(stream) == []
