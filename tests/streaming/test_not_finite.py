"""Values that are infinite or not a number end their stream before a frame is shown, and no other stream."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pyrf.config import LatentSize
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.finite import NotFiniteError
from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from pyrf.streaming.lockstep import next_chunks
from tests.support import networks

PROMPT = "a red circle"


@pytest.fixture
def pipe(random_bundle: Path) -> StreamingPipeline:
    """Of the test's own, as it may be damaged."""
    return StreamingPipeline.from_pretrained(str(random_bundle))


def damage(stream: Stream, value: float = float("nan")) -> None:
    """Make the next noise of a stream that has begun hold a value that no network copes with."""
    with stream.computing() as state:
        assert state is not None
        draw = state.loop.draw

        def damaged() -> torch.Tensor:
            noise = draw()
            noise.view(-1)[0] = value
            return noise

        state.loop.draw = damaged


def frames(chunk: Chunk | NotFiniteError | None) -> NDArray[np.uint8]:
    assert isinstance(chunk, Chunk)
    return chunk.frames


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_stream_ends_with_an_error(pipe: StreamingPipeline, value: float) -> None:
    stream = pipe.stream(PROMPT)
    next(stream)
    damage(stream, value)
    with pytest.raises(NotFiniteError, match="chunk 1 of the stream is infinite or not a number"):
        next(stream)
    assert stream.closed
    assert next(stream, None) is None


def test_one_latent_is_enough(pipe: StreamingPipeline) -> None:
    """Though all others are good, and none of them is computed from it before the next chunk."""
    stream = pipe.stream(PROMPT)
    next(stream)
    with stream.computing() as state:
        assert state is not None
        made = state.next_latents()
        made[0, -1, -1, -1, -1] = float("nan")
        state.next_latents = lambda: made  # type: ignore[method-assign]
    with pytest.raises(NotFiniteError, match="chunk 1 of the stream is infinite or not a number"):
        next(stream)
    assert stream.closed


def test_an_async_stream_ends_with_an_error(pipe: StreamingPipeline) -> None:
    async def watch() -> None:
        async with pipe.stream(PROMPT) as stream:
            await anext(stream)
            damage(stream)
            with pytest.raises(NotFiniteError):
                await anext(stream)

    asyncio.run(watch())


def test_a_video_is_not_made(pipe: StreamingPipeline) -> None:
    with torch.no_grad():
        pipe.model.backend.model.head.head.bias[0] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(NotFiniteError, match="chunk 0 of the stream"):
        pipe(PROMPT, 1)


def test_a_prompt_that_is_not_finite_is_refused(pipe: StreamingPipeline) -> None:
    stream = pipe.stream(PROMPT)
    next(stream)
    with torch.no_grad():
        pipe.text_encoder.network.norm.weight[0] = float("inf")
    stream.prompt = "a blue square"
    with pytest.raises(NotFiniteError, match="prompt_embeds must be finite"):
        next(stream)
    assert stream.closed


def test_given_latents_are_finite(pipe: StreamingPipeline) -> None:
    with pipe.stream(PROMPT).computing() as state:
        assert state is not None
        latents = torch.zeros(1, *state.rollout.shape)
        latents[0, 0, 0, 0, 0] = float("nan")
        with pytest.raises(NotFiniteError, match="given latents must be finite, but 1 of"):
            state.loop.prefill(latents)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_the_others_of_a_batch_go_on(pipe: StreamingPipeline, bad: int) -> None:
    """Bit for bit as they would without the bad one."""
    together, calm = ([pipe.stream(PROMPT, seed=i) for i in range(3)] for _ in range(2))
    for streams in (together, calm):
        next_chunks(streams)
    damage(together[bad])
    for turn in range(4):
        found, expected = next_chunks(together), next_chunks(calm)
        if turn == 0:
            assert isinstance(found[bad], NotFiniteError)
        else:
            assert found[bad] is None
        for i in {0, 1, 2} - {bad}:
            assert np.abs(frames(found[i]).astype(int) - frames(expected[i])).max() <= 1
    assert [stream.closed for stream in together] == [i == bad for i in range(3)]


def test_a_new_stream_knows_nothing_of_it(pipe: StreamingPipeline) -> None:
    calm = frames(next(pipe.stream(PROMPT, seed=4)))
    stream = pipe.stream(PROMPT, seed=4)
    next(stream)
    damage(stream)
    with pytest.raises(NotFiniteError):
        next(stream)
    assert np.array_equal(frames(next(pipe.stream(PROMPT, seed=4))), calm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cache_that_begins_again_holds_no_old_value(dtype: torch.dtype) -> None:
    cache = SinkRingCache(
        networks.MODEL, networks.STREAM, batch=1, size=LatentSize(4, 6), dtype=dtype, device="cpu"
    )
    masters = [*(cache.key_masters or ()), *(cache.value_masters or ())]
    for buffer in (*cache.keys, *cache.values, *masters):
        buffer.fill_(float("nan") if buffer.is_floating_point() else 77)
    cache.reset()
    assert all(not buffer.any() for buffer in (*cache.keys, *cache.values, *masters))
