"""Viewers by themselves, and one that the server itself opens."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from pyrf.pipeline import StreamingPipeline
from pyrf.protocol import EndReason, PromptMessage
from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.viewer import MAX_MESSAGES, Viewer
from tests.support.running import PROMPT, Running, read_frames, read_until


@pytest.mark.parametrize(
    ("reason", "rest"),
    [
        ("closed", 0),
        ("expired", 0),
        ("replaced", 0),
        ("max_length", 2),
        ("shutdown", 2),
        ("failed", 2),
    ],
)
def test_what_is_left_comes_after_some_ends_only(reason: EndReason, rest: int) -> None:
    async def watch() -> list[Any]:
        left: list[Any] = ["a chunk", "another"]
        viewer = Viewer("test", lambda: left.pop(0) if left else None)
        viewer.end(reason)
        viewer.end("closed")  # the first reason counts
        assert viewer.closing_message().reason == reason
        items = []
        while (item := await viewer.next()) is not None:
            items.append(item)
        return items

    assert asyncio.run(watch()) == ["a chunk", "another"][:rest]


def test_messages_come_first_and_are_not_kept_without_end() -> None:
    async def watch() -> None:
        viewer = Viewer("test", lambda: None)
        for i in range(2 * MAX_MESSAGES):
            viewer.announce(PromptMessage(prompt_id=i, chunk=0))
        first = await viewer.next()
        assert isinstance(first, PromptMessage)
        assert first.prompt_id == MAX_MESSAGES
        assert len(viewer.messages()) == MAX_MESSAGES - 1
        assert viewer.messages() == []

    asyncio.run(watch())


def test_an_output_of_the_server_is_a_viewer_as_any_other(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=3, pace="max")
    session = server.session(created)

    async def record(num_chunks: int) -> list[MadeChunk]:
        """What a route would do: attach, and send on what comes."""
        viewer = session.attach("file")
        assert (session.viewer, viewer.kind) == (viewer, "file")
        chunks: list[MadeChunk] = []
        while len(chunks) < num_chunks:
            item = await viewer.next()
            assert isinstance(item, MadeChunk)
            chunks.append(item)
        return chunks

    with server.attach(created) as socket:
        read_frames(socket, 9)
        chunks = server.run(record(3))
        assert read_until(socket, "closing").reason == "replaced"
    first, last = chunks[0].first_frame, chunks[-1].first_frame + chunks[-1].num_frames
    expected = pipe(PROMPT, num_frames=last, seed=3).frames
    assert np.array_equal(np.concatenate([made.chunk.frames for made in chunks]), expected[first:])
    output = session.viewer
    with server.attach(created) as socket:
        assert read_frames(socket, 1)
        server.wait_until(output.ended.is_set)
        assert output.ending == "replaced"
    server.delete(created)
