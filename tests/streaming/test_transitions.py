"""Streams whose prompts are blended, and turn into one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.change import Change, Scheduled
from pyrf.streaming.lockstep import next_chunks
from pyrf.streaming.mix import GivenPrompt
from tests.support.overlapped import overlap_decoders
from tests.support.taking import BLUE, RED, frames_of, take

MIX = ((RED, 0.75), (BLUE, 0.25))


def test_a_blend_is_neither_of_its_texts_and_at_its_ends_each(pipe: StreamingPipeline) -> None:
    red, blue = (pipe(text, num_frames=9).frames for text in (RED, BLUE))
    video = pipe([(RED, 0.75), (BLUE, 0.25)], num_frames=9)
    assert not np.array_equal(video.frames, red)
    assert not np.array_equal(video.frames, blue)
    assert video.metadata["prompt"] == {RED: 0.75, BLUE: 0.25}
    assert np.array_equal(pipe({RED: 1, BLUE: 0}, num_frames=9).frames, red)


def test_each_clip_of_a_batch_has_its_own_blend(pipe: StreamingPipeline) -> None:
    prompts: list[GivenPrompt] = [list(MIX), BLUE]
    mixed, plain = pipe(prompts, num_frames=9, seed=[3, 4])
    assert np.abs(mixed.frames.astype(int) - pipe(list(MIX), num_frames=9, seed=3).frames).max() <= 1
    assert np.abs(plain.frames.astype(int) - pipe(BLUE, num_frames=9, seed=4).frames).max() <= 1


def test_a_stream_tells_the_blend_that_it_shows(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED) as stream:
        stream.prompt = list(MIX)
        assert stream.prompt == MIX
        chunk = next(stream)
    assert chunk.prompt == MIX
    assert "75 % a red circle" in repr(chunk)


@pytest.mark.parametrize("overlapped", [False, True])
def test_a_transition_goes_by_chunks_and_says_when(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch, overlapped: bool
) -> None:
    """Chunks begin at 0, 9, 21, 33, 45, 57 of 16 frames per second; two seconds are 32 frames, 3 chunks."""
    if overlapped:
        overlap_decoders(pipe, monkeypatch)
    with pipe.stream(RED, seed=5) as stream:
        chunks = take(stream, 2)
        assert stream.set_prompt(BLUE, over=2.0) == Scheduled(2, 21 / 16, 4, 45 / 16)
        chunks += take(stream, 4)
    assert [chunk.prompt for chunk in chunks] == [RED, RED, BLUE, BLUE, BLUE, BLUE]
    assert [chunk.progress for chunk in chunks] == [1, 1, 1 / 3, 2 / 3, 1, 1]
    assert [chunk.timing.prompt > 0 for chunk in chunks] == [True, False, True, True, True, False]
    in_steps = frames_of(chunks)
    with pipe.stream(RED, seed=5, timeline={"0:01.3": Change(BLUE, over=2.0)}) as told:
        assert np.array_equal(frames_of(take(told, 6)), in_steps)
    with pipe.stream(RED, seed=5) as at_once:
        plain = take(at_once, 2)
        assert at_once.set_prompt(BLUE, over=0.75) == Scheduled(2, 21 / 16, 2, 21 / 16)  # one chunk: no step
        plain += take(at_once, 4)
    with pipe.stream(RED, seed=5, timeline={2: BLUE}) as switched:
        assert np.array_equal(frames_of(plain), frames_of(take(switched, 6)))
    assert not np.array_equal(frames_of(plain), in_steps)


def test_before_the_first_chunk_there_is_nothing_to_turn_from(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=5) as stream:
        assert stream.set_prompt(BLUE, over=2.0) == Scheduled(0, 0.0, 0, 0.0)
        chunks = take(stream, 2)
    assert [chunk.progress for chunk in chunks] == [1, 1]
    assert np.array_equal(frames_of(chunks), pipe(BLUE, num_frames=21, seed=5).frames)


def test_a_stream_that_continues_begins_its_chunks_earlier(pipe: StreamingPipeline) -> None:
    start = np.zeros((pipe.height, pipe.width, 3), np.uint8)
    with pipe.stream(RED, image=start, start="still") as stream:
        next(stream)
        assert stream.set_prompt(BLUE, over=1.0) == Scheduled(1, 12 / 16, 2, 24 / 16)


def test_a_transition_recaches_once_it_is_complete(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pipe.stream(RED) as stream:
        take(stream, 3)
        assert stream._state is not None
        set_prompt, recached = stream._state.rollout.set_prompt, []

        def spy(rows: Any, recache: bool = False) -> None:
            recached.append(recache)
            set_prompt(rows, recache)

        monkeypatch.setattr(stream._state.rollout, "set_prompt", spy)
        stream.set_prompt(BLUE, recache=True, over=1.5)
        take(stream, 4)
    assert recached == [False, True]


def test_streams_in_lockstep_turn_each_by_itself(pipe: StreamingPipeline) -> None:
    def run(together: bool) -> list[np.ndarray]:
        streams = [pipe.stream(RED, seed=1), pipe.stream(RED, seed=2)]
        parts: list[list[Any]] = [[], []]
        for i in range(4):
            if i == 1:
                streams[0].set_prompt(BLUE, over=1.5)
            chunks = next_chunks(streams) if together else [next(stream) for stream in streams]
            for part, chunk in zip(parts, chunks):
                part.append(chunk)
        return [frames_of(part) for part in parts]

    for alone, joint in zip(run(False), run(True)):
        assert np.abs(alone.astype(int) - joint).max() <= 1


@pytest.mark.parametrize("over", [-1, float("nan"), float("inf"), 3601, "2", True, None])
def test_a_length_that_no_transition_has_is_refused(pipe: StreamingPipeline, over: Any) -> None:
    with (
        pipe.stream(RED) as stream,
        pytest.raises(ValueError, match="over must be a number of seconds from 0"),
    ):
        stream.set_prompt(BLUE, over=over)
    with pytest.raises(ValueError, match="over must be a number of seconds from 0"):
        Change(BLUE, over=over)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "nothing changes; give a prompt"),
        ({"over": 1.0, "adapters": {"a": 1.0}}, "over and recache belong to a new prompt"),
        ({"prompt": RED, "recache": 1}, "recache must be true or false"),
        ({"prompt": RED, "adapters": {"a": float("nan")}}, "the strength of adapter 'a'"),
        ({"prompt": RED, "adapters": {"": 1.0}}, "the name of an adapter"),
        ({"prompt": RED, "adapters": ["a"]}, "adapters must map"),
    ],
)
def test_a_change_is_checked_when_it_is_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Change(**change)


def test_strengths_of_adapters_that_there_are_not_are_refused_before_the_stream_begins(
    pipe: StreamingPipeline,
) -> None:
    with pytest.raises(ValueError, match="no adapter 'style'"):
        pipe.stream(RED, timeline={2: Change(BLUE, adapters={"style": 1.0})})
