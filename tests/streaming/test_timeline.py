"""Prompts that begin later: where they start, and that none is lost without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrf.moments import format_time
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.change import Change
from pyrf.streaming.prompts import Prompt
from pyrf.streaming.timeline import place, switches_of
from tests.support.taking import BLUE, RED


def test_times_and_chunks_are_the_same_timeline(pipe: StreamingPipeline) -> None:
    """Chunks begin at frames 0, 9, 21, 33: at 0.5625 s, 1.3125 s and 2.0625 s."""
    by_chunk = pipe(RED, num_frames=45, timeline={1: BLUE, 3: RED})
    for timeline in ({"0.5625": BLUE, "2.0625": RED}, {"0:02.0625": RED, ".1": BLUE}):
        assert np.array_equal(pipe(RED, num_frames=45, timeline=timeline).frames, by_chunk.frames)
    assert by_chunk.metadata["timeline"] == {"0:00.5625": BLUE, "0:02.0625": RED}


@pytest.mark.parametrize("fps", [12.5, 23.976, 24000 / 1001, 25.0, 30.0])
def test_a_time_at_which_a_chunk_starts_is_that_chunk(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch, fps: float
) -> None:
    """Also where seconds times rate is a little more than a whole number of frames, by rounding."""
    monkeypatch.setattr(pipe.codec, "fps", fps)
    for chunk in range(1, 200):
        seconds = format_time(pipe.model.start_of_chunk(chunk) / fps)
        assert place(pipe.model, switches_of({seconds: RED}), continues=False) == {chunk: Change(RED)}


@given(st.floats(0.01, 1e5), st.booleans())
def test_a_prompt_begins_with_the_first_chunk_at_its_time_or_later(
    pipe: StreamingPipeline, seconds: float, continues: bool
) -> None:
    placed = place(pipe.model, switches_of({f"{seconds:.6f}": RED}), continues=continues)
    (chunk,) = placed
    start = pipe.model.start_of_chunk(chunk, continues=continues) / pipe.fps
    before = pipe.model.start_of_chunk(chunk - 1, continues=continues) / pipe.fps
    assert before < seconds <= start + 1e-6


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        (
            {"1": BLUE, "1.2": RED},
            r"timeline\['1'\] \('a blue.*timeline\['1.2'\] .*both begin with the chunk at 1",
        ),
        (
            {2: BLUE, "1.2": RED},
            r"timeline\[2\] .* and timeline\['1.2'\] .* let it begin .* at 2.062 seconds",
        ),
        ({0: BLUE}, r"timeline\[0\] begins with the video, as its first prompt does"),
        ({"0:00": BLUE}, r"timeline\['0:00'\] begins with the video"),
        ({"5": BLUE}, r"timeline\['5'\] lies outside the video, which lasts 4 seconds"),
        ({"1:15": BLUE}, r"timeline\['1:15'\] lies outside the video"),
        ({"3.9": BLUE}, r"timeline\['3.9'\] comes too late: .* last at 3.562 seconds \(chunk 5\)"),
        ({6: BLUE}, r"timeline\[6\] comes too late"),
        ({"0:61": BLUE}, r"timeline\['0:61'\]: a time is seconds"),
        ({"-1": BLUE}, "a time is seconds"),
        ({1.0: BLUE}, "a chunk of the timeline must be a whole number, got 1.0"),
        ({True: BLUE}, "must be a whole number, got True"),
        ([BLUE], "timeline must map chunks or times to prompts, got list"),
        ({1: " "}, "the prompt is empty"),
    ],
)
def test_what_would_be_lost_or_misread_is_refused(
    pipe: StreamingPipeline, timeline: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(RED, num_frames=64, timeline=timeline)  # 4 seconds; chunks at 0, 9, 21, 33, 45, 57


def test_a_stream_has_no_end_to_come_too_late_for(pipe: StreamingPipeline) -> None:
    timeline: dict[int | str, Prompt] = {"1:00:00": RED, 10**6: BLUE}
    assert place(pipe.model, switches_of(timeline), continues=False) == {
        4801: Change(RED),
        10**6: Change(BLUE),
    }
