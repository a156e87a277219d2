"""Frames and chunks of a stream, as its model counts them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrf.pipeline import StreamingPipeline


@given(chunk=st.integers(0, 1000), into=st.integers(1, 12), continues=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_frame_belongs_to_the_chunk_that_starts_there_or_next(
    pipe: StreamingPipeline, chunk: int, into: int, continues: bool
) -> None:
    model = pipe.model
    start = model.start_of_chunk(chunk, continues=continues)
    end = model.start_of_chunk(chunk + 1, continues=continues)
    assert end - start == (12 if chunk or continues else 9)
    assert model.chunk_of_frame(start, continues=continues) == chunk
    for frame in (start + min(into, end - start), start + 0.25):
        assert model.chunk_of_frame(frame, continues=continues) == chunk + 1


@given(num_frames=st.integers(1, 10_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_many_chunks_hold_the_frames_and_one_less_does_not(
    pipe: StreamingPipeline, num_frames: int
) -> None:
    chunks = pipe.num_chunks_of(num_frames)
    assert pipe.num_frames_of(chunks) >= num_frames
    assert chunks == 1 or pipe.num_frames_of(chunks - 1) < num_frames


def test_frames_in_a_chunk(pipe: StreamingPipeline) -> None:
    assert pipe.model.frames_in_chunk == pipe.num_frames_of(2) - pipe.num_frames_of(1)


def test_a_model_is_frozen(pipe: StreamingPipeline) -> None:
    with pytest.raises(AttributeError):
        pipe.model.height = 3  # type: ignore[misc]
