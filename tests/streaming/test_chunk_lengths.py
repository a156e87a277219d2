"""Chunks of one and of eight latent frames, through the public API: counts of frames, memory, starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import StartKind
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.lockstep import next_chunks
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.taking import take

PROMPT = "a red circle moves right"
WAYS: dict[str, list[str]] = {
    "one": ["chunk_frames=1", "window=4", "sink=1"],
    "one, without a window": ["chunk_frames=1", "window=none", "sink=0", "steps=1000"],
    "one, unipc": ["chunk_frames=1", "window=3", "sink=0", "sampler=unipc"],
    "one, another first": [
        "chunk_frames=1",
        "window=3",
        "sink=1",
        "steps=1000,500",
        "first_chunk_steps=1000",
    ],
    "eight": ["chunk_frames=8", "window=32", "sink=8", "alpha=1", "sampler=unipc"],
}


@pytest.fixture(scope="module", params=WAYS)
def pipe(request: pytest.FixtureRequest, random_bundle: Path) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(random_bundle), stream=WAYS[request.param])


def test_frames_are_counted_as_they_come(pipe: StreamingPipeline) -> None:
    """The first latent frame makes one frame, each later one four."""
    chunk = pipe.stream_config.chunk_frames
    with pipe.stream(PROMPT, seed=1) as stream:
        lengths = [len(part.frames) for part in take(stream, 3)]
    assert lengths == [4 * chunk - 3, 4 * chunk, 4 * chunk]
    assert [pipe.num_frames_of(n) for n in (1, 2, 3)] == list(np.cumsum(lengths))
    for frames in range(1, 4 * 3 * chunk):
        chunks = pipe.num_chunks_of(frames)
        assert pipe.num_frames_of(chunks) >= frames > (pipe.num_frames_of(chunks - 1) if chunks > 1 else 0)
    assert len(pipe(PROMPT, num_frames=4 * chunk + 2, seed=1).frames) == 4 * chunk + 2


def test_memory_stays_where_it_is(pipe: StreamingPipeline) -> None:
    """Past the window, too; every value stays finite."""
    stream = pipe.stream(PROMPT, seed=2)
    with stream:
        next(stream)
        assert stream._state is not None
        rollout = stream._state.rollout
        assert isinstance(rollout, TorchRollout)
        buffers = [*rollout.cache.keys, *rollout.cache.values]
        places = [buffer.data_ptr() for buffer in buffers]
        slots = pipe.stream_config.slots
        take(stream, slots + 2)
        assert [buffer.data_ptr() for buffer in (*rollout.cache.keys, *rollout.cache.values)] == places
        assert rollout.cache.length == slots * rollout.cache.tokens == buffers[0].shape[2]
        assert all(buffer.isfinite().all() for buffer in buffers)
        assert len(rollout._recent) <= slots


@pytest.mark.parametrize("start", ["still", "first_frame"])
def test_a_stream_goes_on_from_a_picture_and_changes_its_prompt(
    pipe: StreamingPipeline, start: StartKind
) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    chunk = pipe.stream_config.chunk_frames
    with pipe.stream(PROMPT, image=picture, start=start, timeline={2: "a blue square"}) as stream:
        parts = take(stream, 3)
    # From a still picture none is the stream's first.
    first = 4 * chunk if start == "still" else 4 * chunk - 3
    assert [len(part.frames) for part in parts] == [first, 4 * chunk, 4 * chunk]
    assert [part.prompt for part in parts] == [PROMPT, PROMPT, "a blue square"]


def test_streams_in_lockstep_and_in_a_batch_are_what_each_is_alone(pipe: StreamingPipeline) -> None:
    alone = [take(pipe.stream(PROMPT, seed=seed), 2)[1].frames for seed in (3, 4)]
    together = [pipe.stream(PROMPT, seed=seed) for seed in (3, 4)]
    next_chunks(together)
    joined: list[Any] = next_chunks(together)
    batch = take(pipe.stream([PROMPT, PROMPT], seed=[3, 4]), 2)[1].frames
    for i in range(2):
        for found in (joined[i].frames, batch[i]):
            assert np.abs(found.astype(int) - alone[i].astype(int)).max() <= 2


def test_a_prompt_may_be_written_into_the_past(pipe: StreamingPipeline) -> None:
    with pipe.stream(PROMPT, seed=5) as stream:
        take(stream, 2)
        stream.set_prompt("a blue square", recache=True)
        assert next(stream).frames.shape[1:] == (HEIGHT, WIDTH, 3)
