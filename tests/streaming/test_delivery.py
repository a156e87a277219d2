"""Each chunk goes to exactly one who asks, whoever asks, and whatever breaks a wait off."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from pyrf.streaming.state import StreamState
from tests.support.taking import BLUE, RED, frames_of, take

CHUNKS = 8


@pytest.fixture(scope="module")
def undisturbed(pipe: StreamingPipeline) -> list[Chunk]:
    with pipe.stream(RED, seed=7) as stream:
        return take(stream, CHUNKS)


def check(chunks: list[Chunk], undisturbed: list[Chunk]) -> None:
    """All chunks of the stream, each once, with the bytes of a stream that nobody disturbs."""
    in_order = sorted(chunks, key=lambda chunk: chunk.index)
    assert [chunk.index for chunk in in_order] == list(range(len(chunks)))
    assert np.array_equal(frames_of(in_order), frames_of(undisturbed[: len(chunks)]))


class Gate:
    """Holds a stream's computations until it is opened.

    Attributes:
        entered: set when a computation has begun.
    """

    def __init__(self, stream: Stream) -> None:
        self.entered, self._open = threading.Event(), threading.Event()
        original = stream._compute

        def compute() -> Chunk | None:
            self.entered.set()
            assert self._open.wait(60)
            return original()

        stream._compute = compute  # type: ignore[method-assign]

    def open(self) -> None:
        self._open.set()


def test_threads_share_a_stream(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    with pipe.stream(RED, seed=7) as stream, ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(next, stream) for _ in range(CHUNKS)]
        check([future.result(60) for future in taken], undisturbed)


def test_coroutines_share_a_stream(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    async def run(stream: Stream) -> list[Chunk]:
        return await asyncio.gather(*(anext(stream) for _ in range(CHUNKS)))

    with pipe.stream(RED, seed=7) as stream:
        check(asyncio.run(run(stream)), undisturbed)


def test_two_async_for_share_a_stream(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    async def run(stream: Stream) -> list[Chunk]:
        chunks: list[Chunk] = []

        async def watch() -> None:
            async for chunk in stream:
                chunks.append(chunk)
                if len(chunks) >= CHUNKS - 1:
                    return

        await asyncio.gather(watch(), watch())
        return chunks

    with pipe.stream(RED, seed=7) as stream:
        check(asyncio.run(run(stream)), undisturbed)


def test_event_loops_and_threads_share_a_stream(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    """Two event loops in threads of their own, a thread without one, and the main thread."""

    async def two(stream: Stream) -> list[Chunk]:
        return list(await asyncio.gather(anext(stream), anext(stream)))

    with pipe.stream(RED, seed=7) as stream, ThreadPoolExecutor(3) as pool:
        loops = [pool.submit(asyncio.run, two(stream)) for _ in range(2)]
        plain = pool.submit(take, stream, 2)
        chunks = take(stream, 2) + plain.result(60)
        for loop in loops:
            chunks += loop.result(60)
        check(chunks, undisturbed)


def test_a_cancelled_async_for_goes_on_by_next(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    async def run(stream: Stream) -> list[Chunk]:
        chunks: list[Chunk] = []
        gates: list[Gate] = []

        async def watch() -> None:
            async for chunk in stream:
                chunks.append(chunk)
                if len(chunks) == 2:
                    gates.append(Gate(stream))

        task = asyncio.create_task(watch())
        while not gates:
            await asyncio.sleep(0)
        await asyncio.to_thread(gates[0].entered.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gates[0].open()
        chunks.append(next(stream))
        return chunks

    with pipe.stream(RED, seed=7) as stream:
        check([*asyncio.run(run(stream)), next(stream)], undisturbed)


def test_a_wait_that_is_cancelled_again_and_again(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    """Also while another waits for the same chunk, and when it is done before the cancellation is heard."""

    async def run(stream: Stream) -> list[Chunk]:
        gate = Gate(stream)
        impatient = [asyncio.create_task(anext(stream)) for _ in range(5)]
        patient = asyncio.create_task(anext(stream))
        await asyncio.to_thread(gate.entered.wait, 60)
        for task in impatient:
            task.cancel()
        gate.open()
        for task in impatient:
            with pytest.raises(asyncio.CancelledError):
                await task
        chunks = [await patient]
        late = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)  # it asks
        under_way = stream._delivery._under_way
        assert under_way is not None
        await asyncio.to_thread(under_way.exception, 60)
        late.cancel()
        with suppress(asyncio.CancelledError):
            chunks.append(await late)
        return [*chunks, await anext(stream)]

    with pipe.stream(RED, seed=7) as stream:
        check(asyncio.run(run(stream)), undisturbed)


def test_an_event_loop_that_ends_early(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    """Its chunk is for the next loop, and nothing is said to a loop that is closed."""

    async def give_up(stream: Stream, gate: Gate) -> None:
        task = asyncio.create_task(anext(stream))
        await asyncio.to_thread(gate.entered.wait, 60)
        assert not task.done()

    async def ask(stream: Stream) -> Chunk:
        return await anext(stream)

    with pipe.stream(RED, seed=7) as stream:
        gate = Gate(stream)
        asyncio.run(give_up(stream, gate))
        gate.open()
        check([asyncio.run(ask(stream)), next(stream)], undisturbed)


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Jobs of a script ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(entered: threading.Event, go_on: Callable[[], object]) -> threading.Thread:
    """Interrupt the main thread once a computation has begun, as Ctrl-C or a notebook's button does."""

    def interrupt() -> None:
        assert entered.wait(60)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        go_on()

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


def interrupted(stream: Stream) -> None:
    """Ask in the main thread, and be interrupted."""
    gate = Gate(stream)
    thread = interrupting(gate.entered, gate.open)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    thread.join()


def test_an_interrupt_loses_no_chunk(pipe: StreamingPipeline, undisturbed: list[Chunk]) -> None:
    with pipe.stream(RED, seed=7) as stream:
        chunks = [next(stream)]
        for _ in range(2):
            interrupted(stream)
            assert not stream.closed
            chunks.append(next(stream))
        check([*chunks, next(stream)], undisturbed)


def test_a_prompt_after_an_interrupt_is_for_the_chunk_after(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=7, timeline={2: BLUE}) as stream:
        expected = take(stream, 4)
    with pipe.stream(RED, seed=7) as stream:
        chunks = [next(stream)]
        entered, release, original = threading.Event(), threading.Event(), StreamState.next_latents

        def slow(state: StreamState) -> torch.Tensor:
            entered.set()
            assert release.wait(60)
            return original(state)

        state: Any = stream._state
        state.next_latents = lambda: slow(state)
        thread = interrupting(entered, release.set)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        stream.prompt = BLUE
        thread.join()
        chunks += take(stream, 3)
    assert [chunk.prompt for chunk in chunks] == [RED, RED, BLUE, BLUE]
    assert np.array_equal(frames_of(chunks), frames_of(expected))


def ends(ask: Callable[[Stream], object], stream: Stream) -> None:
    """Close a stream while somebody asks in another thread, who then hears of its end."""
    gate = Gate(stream)
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(ask, stream)
        assert gate.entered.wait(60)
        closing = pool.submit(stream.close)
        gate.open()
        closing.result(60)
        assert asked.result(60) is None
    assert stream.closed
    assert next(stream, None) is None
    assert asyncio.run(last(stream)) is None


async def last(stream: Stream) -> Chunk | None:
    return await anext(stream, None)


def test_closing_while_a_thread_asks(pipe: StreamingPipeline) -> None:
    ends(lambda stream: next(stream, None), pipe.stream(RED))


def test_closing_while_a_coroutine_asks(pipe: StreamingPipeline) -> None:
    ends(lambda stream: asyncio.run(last(stream)), pipe.stream(RED))


def test_closing_drops_a_chunk_that_nobody_took(pipe: StreamingPipeline) -> None:
    stream = pipe.stream(RED)
    interrupted(stream)
    stream.close()
    assert next(stream, None) is None
    stream.close()


def test_one_of_those_who_wait_hears_an_error(pipe: StreamingPipeline) -> None:
    stream = pipe.stream(RED)

    def fail() -> StreamState:
        raise MemoryError("no room")

    stream._opened = fail  # type: ignore[method-assign]

    async def run() -> list[object]:
        waits = (anext(stream, None) for _ in range(3))
        return await asyncio.gather(*waits, return_exceptions=True)

    heard = asyncio.run(run())
    assert sorted(type(what).__name__ for what in heard) == ["MemoryError", "NoneType", "NoneType"]


def test_a_closed_stream_says_so(pipe: StreamingPipeline) -> None:
    stream = pipe.stream(RED)
    stream.close()
    closed = "the stream is closed; begin another one"
    with pytest.raises(ValueError, match=closed):
        stream.prompt = BLUE
    with pytest.raises(ValueError, match=closed):
        stream.set_prompt(BLUE, recache=True)
    with pytest.raises(ValueError, match=closed), stream:
        pass

    async def enter() -> None:
        async with stream:
            pass

    with pytest.raises(ValueError, match=closed):
        asyncio.run(enter())
    assert stream.prompt == RED
    assert list(stream) == []


def test_an_unfinished_stream_frees_its_memory(pipe: StreamingPipeline) -> None:
    """Without a cycle that only the collector would find, and its thread ends."""
    gc.collect()
    before = {thread for thread in threading.enumerate() if thread.name.startswith("pyrf-stream")}
    stream = pipe.stream(RED)
    next(stream)
    assert stream._state is not None
    state = weakref.ref(stream._state)
    gc.disable()
    try:
        del stream
        assert state() is None
    finally:
        gc.enable()
    for thread in {t for t in threading.enumerate() if t.name.startswith("pyrf-stream")} - before:
        thread.join(60)
        assert not thread.is_alive()


def test_the_threads_of_torch_are_the_callers(pipe: StreamingPipeline) -> None:
    """torch keeps their number for each thread, so that of the stream's takes it over at each chunk."""
    before = torch.get_num_threads()
    seen: list[int] = []
    with pipe.stream(RED) as stream:
        original = stream._compute

        def compute() -> Chunk | None:
            seen.append(torch.get_num_threads())
            return original()

        stream._compute = compute  # type: ignore[method-assign]
        try:
            for count in (1, 2, 1):
                torch.set_num_threads(count)
                next(stream)
        finally:
            torch.set_num_threads(before)
    assert seen == [1, 2, 1]
