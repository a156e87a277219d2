"""Streams computed together show what each shows alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrf.pipeline import Chunk, StreamingPipeline
from pyrf.streaming.lockstep import next_chunks
from pyrf.streaming.state import StreamState

RED, BLUE = "a red circle moves right", "a blue square"


@pytest.fixture(scope="module")
def pipe(random_bundle: Path) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(random_bundle))


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """The same up to a rounding of the last bit."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1


@given(data=st.data())
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_company_any_prompt_at_any_time(pipe: StreamingPipeline, data: st.DataObject) -> None:
    """Streams join and leave, ahead or behind, and switch prompts; none of them shows it."""
    count = data.draw(st.integers(2, 4))
    together = [pipe.stream(RED, seed=i) for i in range(count)]
    alone = [pipe.stream(RED, seed=i) for i in range(count)]
    for _ in range(data.draw(st.integers(3, 6))):
        chosen = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
        for i in chosen:
            if data.draw(st.booleans()):
                recache = data.draw(st.booleans())
                for stream in (together[i], alone[i]):
                    stream.set_prompt(BLUE, recache=recache)
        for i, chunk in zip(chosen, next_chunks([together[i] for i in chosen])):
            expected = next(alone[i])
            assert isinstance(chunk, Chunk)
            assert (chunk.index, chunk.prompt) == (expected.index, expected.prompt)
            assert near(chunk.frames, expected.frames)
            denoise, clean = chunk.timing.denoise, chunk.timing.clean
            assert denoise is not None
            assert clean is not None
            assert chunk.timing.total >= denoise + clean > 0


def test_batches_and_single_streams_mix(pipe: StreamingPipeline) -> None:
    pair, single = pipe.stream([RED, BLUE], seed=[1, 2]), pipe.stream(BLUE, seed=3)
    next(single)
    for _ in range(4):
        two, one = next_chunks([pair, single])
    assert isinstance(two, Chunk)
    assert isinstance(one, Chunk)
    for clip, prompt, seed in zip(two.frames, (RED, BLUE), (1, 2)):
        assert near(clip, pipe(prompt, num_frames=45, seed=seed).frames[-12:])
    assert near(one.frames, pipe(BLUE, num_frames=57, seed=3).frames[-12:])


def test_a_first_chunk_with_steps_of_its_own_is_computed_apart(random_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(random_bundle, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["pyrf"] |= {"denoising_steps": [1000, 500], "first_chunk_steps": [1000, 750, 500, 250]}
    (folder / "model_index.json").write_text(json.dumps(index))
    pipe = StreamingPipeline.from_pretrained(str(folder))
    early, late, third = (pipe.stream(RED, seed=seed) for seed in (1, 2, 1))
    expected = [next(third) for _ in range(3)]
    next(late)
    for number in range(3):
        chunk, _ = next_chunks([early, late])
        assert isinstance(chunk, Chunk)
        assert near(chunk.frames, expected[number].frames)


def test_one_stream_is_exact(pipe: StreamingPipeline) -> None:
    (chunk,) = next_chunks([pipe.stream(RED, seed=1)])
    assert isinstance(chunk, Chunk)
    assert np.array_equal(chunk.frames, pipe(RED, num_frames=9, seed=1).frames)


def test_closed_streams_are_left_out(pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (pipe.stream(RED, seed=i) for i in range(3))
    first.close()
    assert next_chunks([first, second])[0] is None
    # One that is closed meanwhile does not stop the other, and gives no chunk.
    original = StreamState.begin

    def begin(self: StreamState) -> None:
        second._closed.set()
        original(self)

    monkeypatch.setattr(StreamState, "begin", begin)
    chunks = next_chunks([second, third])
    assert chunks[0] is None
    assert chunks[1] is not None
    assert next_chunks([first, second]) == [None, None]


def test_all_closed_meanwhile_stops_the_calls(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [pipe.stream(RED, seed=i) for i in range(2)]
    original = StreamState.begin

    def begin(self: StreamState) -> None:
        for stream in streams:
            stream._closed.set()
        original(self)

    monkeypatch.setattr(StreamState, "begin", begin)
    assert next_chunks(streams) == [None, None]


def test_an_error_closes_all(pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [pipe.stream(RED, seed=i) for i in range(2)]
    next_chunks(streams)

    def fail(*_: object) -> None:
        raise MemoryError

    state = streams[1]._state
    assert state is not None
    monkeypatch.setattr(state._decoder, "decode", fail)
    with pytest.raises(MemoryError):
        next_chunks(streams)
    assert [stream._state for stream in streams] == [None, None]
    assert next_chunks(streams) == [None, None]


def test_what_cannot_go_together(pipe: StreamingPipeline) -> None:
    stream = pipe.stream(RED)
    with pytest.raises(ValueError, match="one frame size"):
        next_chunks([stream, pipe.stream(RED, height=16)])
    with pytest.raises(ValueError, match="given twice"):
        next_chunks([stream, stream])
