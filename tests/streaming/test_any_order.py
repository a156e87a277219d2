"""A stream asked for anything in any order keeps its promises."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from tests.support.taking import BLUE, RED, frames_of, take

PROMPTS = st.sampled_from((RED, BLUE, "a green square"))


class AnyOrder(RuleBasedStateMachine):
    """Next, switch and close a stream; at the end a timeline of the same prompts shows the same."""

    def __init__(self, pipe: StreamingPipeline) -> None:
        super().__init__()
        self.pipe = pipe
        self.stream: Stream = pipe.stream(RED, seed=3)
        self.chunks: list[Chunk] = []
        self.closed = self.recached = False
        self.newest = RED
        self.timeline: dict[int, str] = {}

    def take(self, chunk: Chunk | None) -> None:
        if self.closed:
            assert chunk is None
            return
        assert chunk is not None
        assert (chunk.index, chunk.prompt) == (len(self.chunks), self.newest)
        assert len(chunk.frames) == (12 if self.chunks else 9)
        self.chunks.append(chunk)

    @rule()
    def ask(self) -> None:
        self.take(next(self.stream, None))

    @rule()
    def ask_and_wait(self) -> None:
        async def wait() -> Chunk | None:
            return await anext(self.stream, None)

        self.take(asyncio.run(wait()))

    @rule(prompt=PROMPTS, recache=st.booleans())
    def switch(self, prompt: str, recache: bool) -> None:
        if self.closed:
            with pytest.raises(ValueError, match="the stream is closed"):
                self.stream.set_prompt(prompt, recache=recache)
            return
        self.stream.set_prompt(prompt, recache=recache)
        self.newest = prompt
        self.recached |= recache
        self.timeline[len(self.chunks)] = prompt
        assert self.stream.prompt == prompt

    @rule()
    def switch_to_nothing(self) -> None:
        with pytest.raises(ValueError, match="closed" if self.closed else "empty"):
            self.stream.prompt = " "
        assert self.stream.prompt == self.newest

    @precondition(lambda self: len(self.chunks) > 1)
    @rule()
    def close(self) -> None:
        self.stream.close()
        self.closed = True
        assert self.stream.closed

    def teardown(self) -> None:
        self.stream.close()
        if self.chunks and not self.recached:
            first = self.timeline.pop(0, RED)
            with self.pipe.stream(first, seed=3, timeline=self.timeline) as stream:
                again = take(stream, len(self.chunks))
            assert [chunk.prompt for chunk in again] == [chunk.prompt for chunk in self.chunks]
            assert np.array_equal(frames_of(again), frames_of(self.chunks))


def test_any_order(pipe: StreamingPipeline) -> None:
    few = settings(max_examples=12, stateful_step_count=10)
    run_state_machine_as_test(lambda: AnyOrder(pipe), settings=few)  # type: ignore[arg-type]  # a factory will do
