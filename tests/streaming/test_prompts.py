"""Where prompts come from: the last assigned, or those of a timeline."""

from __future__ import annotations

from typing import Any

import pytest

from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.prompts import Latest, Prompt, PromptChange, Timeline
from tests.support.overlapped import overlap_decoders
from tests.support.taking import BLUE, RED, take


def test_the_last_assignment_counts_and_is_handed_out_once() -> None:
    source = Latest(("a",))
    assert source.at(0) == PromptChange(("a",))
    assert source.at(1) is None
    source.assign(PromptChange(("b",)))
    source.assign(PromptChange(("c",), recache=True))
    assert source.newest == ("c",)
    assert source.at(2) == PromptChange(("c",), recache=True)
    assert source.at(3) is None
    assert source.newest == ("c",)


def test_a_timeline_changes_prompts_at_its_chunks_whatever_was_assigned() -> None:
    source = Timeline(("a",), {0: PromptChange(("b",)), 3: PromptChange(("d",))})
    assert source.at(0) == PromptChange(("b",))
    source.assign(PromptChange(("c",)))
    assert [source.at(i) for i in (1, 2)] == [PromptChange(("c",)), None]
    source.assign(PromptChange(("e",)))
    assert source.at(3) == PromptChange(("d",))
    assert source.newest == ("d",)


@pytest.mark.parametrize("overlapped", [False, True])
def test_a_stream_follows_its_timeline(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch, overlapped: bool
) -> None:
    if overlapped:
        overlap_decoders(pipe, monkeypatch)
    timeline: dict[int, Prompt] = {1: BLUE, 3: [RED, BLUE]}
    with pipe.stream([RED, RED], timeline=timeline) as stream:
        shown = [chunk.prompt for chunk in take(stream, 4)]
    assert shown == [(RED, RED), (BLUE, BLUE), (BLUE, BLUE), (RED, BLUE)]


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        ({-1: RED}, "a chunk of the timeline must be at least 0, got -1"),
        ({1.5: RED}, "a chunk of the timeline must be a whole number, got 1.5"),
        ({2: ""}, "prompt is empty"),
        ({2: [RED, BLUE]}, "the stream has 1 prompt, got 2"),
    ],
)
def test_a_timeline_is_checked_before_anything_is_computed(
    pipe: StreamingPipeline, timeline: dict[Any, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipe.stream(RED, timeline=timeline)
