"""Streams in an event loop: the same frames, and nothing lost when a wait is cancelled."""

import asyncio
import gc
import threading
from typing import Any

import numpy as np
import pytest

from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from pyrf.streaming.state import StreamState
from tests.support.taking import RED, frames_of


def test_async_iteration_gives_the_same_frames(pipe: StreamingPipeline) -> None:
    async def collect() -> tuple[np.ndarray, set[str]]:
        chunks, threads = [], set()
        async with pipe.stream(RED, seed=5) as stream:
            original = stream._compute

            def compute() -> Chunk | None:
                threads.add(threading.current_thread().name)
                return original()

            stream._compute = compute  # type: ignore[method-assign]
            async for chunk in stream:
                chunks.append(chunk)
                if chunk.index == 4:
                    break
        return frames_of(chunks), threads

    frames, threads = asyncio.run(collect())
    assert np.array_equal(frames, pipe(RED, num_frames=57, seed=5).frames)
    assert len(threads) == 1
    assert threads.isdisjoint({threading.current_thread().name})


async def cancel_a_wait(stream: Stream, entered: threading.Event) -> None:
    """Wait for a chunk, and give up once its computation has begun."""
    task = asyncio.create_task(anext(stream))
    await asyncio.to_thread(entered.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelled_async_iteration_loses_no_chunk(pipe: StreamingPipeline) -> None:
    async def run() -> list[Chunk]:
        async with pipe.stream(RED, seed=5) as stream:
            chunks = [await anext(stream)]
            release, entered = threading.Event(), threading.Event()
            original = stream._compute

            def slow() -> Chunk | None:
                entered.set()
                assert release.wait(60)
                return original()

            stream._compute = slow  # type: ignore[method-assign]
            await cancel_a_wait(stream, entered)
            release.set()
            chunks += [await anext(stream), await anext(stream)]
            return chunks

    chunks = asyncio.run(run())
    assert [chunk.index for chunk in chunks] == [0, 1, 2]
    assert np.array_equal(frames_of(chunks), pipe(RED, num_frames=33, seed=5).frames)


def test_cancelled_async_iteration_loses_no_error(pipe: StreamingPipeline) -> None:
    unheard: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        async with pipe.stream(RED) as stream:
            release, entered = threading.Event(), threading.Event()

            def fail() -> StreamState:
                entered.set()
                assert release.wait(60)
                raise MemoryError("no room")

            stream._opened = fail  # type: ignore[method-assign]
            await cancel_a_wait(stream, entered)
            release.set()
            assert await asyncio.to_thread(stream._closed.wait, 60)
            with pytest.raises(MemoryError, match="no room"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        gc.collect()

    asyncio.run(run())
    assert unheard == []


def test_async_and_sync_may_be_mixed(pipe: StreamingPipeline) -> None:
    async def run(stream: Stream) -> list[Chunk]:
        return [await anext(stream), next(stream), await anext(stream)]

    with pipe.stream(RED) as stream:
        assert [chunk.index for chunk in asyncio.run(run(stream))] == [0, 1, 2]
