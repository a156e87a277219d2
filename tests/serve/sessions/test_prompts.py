"""Prompts over time on a server: blends, transitions, timelines of clips, and when a change will be seen."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import av
import numpy as np
import pytest

from pyrf.client import AsyncClient, BadArgumentError, Client
from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.change import Change
from pyrf.streaming.script import Script
from tests.support.running import BLUE, OTHER, PROMPT, TIMEOUT, Running, read, read_frames

MIX = {PROMPT: 0.75, BLUE: 0.25}


def chunks_of(frames: list[Any]) -> dict[int, tuple[int, float]]:
    """Prompt id and progress by chunk."""
    return {header.chunk: (header.prompt_id, header.prompt_progress) for header, _ in frames}


def pixels(frames: list[Any], pipe: StreamingPipeline) -> np.ndarray:
    size = (-1, pipe.height, pipe.width, 3)
    return np.frombuffer(b"".join(data for _, data in frames), np.uint8).reshape(size)


@pytest.mark.parametrize("over_http", [False, True])
def test_a_transition_says_when_it_shows_and_is_complete(
    server: Running, pipe: StreamingPipeline, over_http: bool
) -> None:
    created = server.create(seed=5, pace="max")
    change = {"prompt": MIX, "over": 2.0}
    frames: list[Any] = []
    with server.attach(created) as viewer:
        read(viewer)
        if over_http:
            server.post(created, "/prompt", **change)
        else:
            viewer.send(json.dumps({"type": "prompt", "ref": 1, **change}))
        reply = None
        while reply is None or not frames or frames[-1][0].chunk < reply.chunk + 4:
            message = read(viewer)
            if isinstance(message, tuple):
                frames.append((message[0], bytes(message[1])))
            else:
                reply = message
    server.delete(created)
    first, times = reply.chunk, pipe.model.times
    assert reply.full_chunk == first + 2
    assert reply.at_s == times.start_of_chunk(first) / pipe.fps
    assert reply.full_s == times.start_of_chunk(first + 2) / pipe.fps
    told = chunks_of(frames)
    assert [told[first + i] for i in range(4)] == [(1, 1 / 3), (1, 2 / 3), (1, 1), (1, 1)]
    assert all(told[chunk] == (0, 1) for chunk in range(first))
    assert min(h.pts_s for h, _ in frames if h.chunk == first) == reply.at_s
    with pipe.stream(PROMPT, seed=5, timeline={first: Change(MIX, over=2.0)}) as stream:
        expected = np.concatenate([next(stream).frames for _ in range(first + 5)])
    assert np.array_equal(pixels(frames, pipe), expected[: len(frames)])


def test_a_session_begins_with_a_blend(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(MIX, seed=1, pace="max")  # type: ignore[arg-type]
    with server.attach(created) as viewer:
        frames = read_frames(viewer, 9)
    server.delete(created)
    assert np.array_equal(pixels(frames, pipe), pipe(MIX, num_frames=9, seed=1).frames)


@pytest.mark.parametrize(
    ("prompt", "code", "message"),
    [
        ({PROMPT: -1}, "invalid", "prompt.weights"),
        ({PROMPT: 0, BLUE: 0}, "bad_prompt", "all weights of a weighted prompt are 0"),
        ({}, "invalid", "at least 1 item"),
        ({f"{i}": 1 for i in range(9)}, "invalid", "at most 8 items"),
        ({PROMPT: "much"}, "invalid", "valid number"),
        ({PROMPT: 1, " ": 1}, "bad_prompt", "the prompt is empty"),
        ({"a" * 1500: 1, "b" * 1500: 1}, "bad_prompt", "may have 2000 characters, got 3000"),
        ([PROMPT, BLUE], "invalid", "a valid string, or an object of weights by text"),
    ],
)
def test_what_is_no_prompt_is_refused(server: Running, prompt: Any, code: str, message: str) -> None:
    created = server.create()
    for reply in (
        server.http.post("/v1/sessions", json={"prompt": prompt}),
        server.post(created, "/prompt", prompt=prompt),
        server.http.post(
            "/v1/videos", json={"prompt": PROMPT, "num_frames": 45, "timeline": [{"at": 1, "prompt": prompt}]}
        ),
    ):
        assert reply.status_code == 422
        assert reply.json()["error"]["code"] == code
        assert message in reply.json()["error"]["message"]
    server.delete(created)


def test_weights_that_json_has_not_are_refused(server: Running) -> None:
    for number in ("NaN", "Infinity", "1e999"):
        body = f'{{"prompt": {{"a": {number}}}}}'
        reply = server.http.post("/v1/sessions", content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code in (400, 422), number


@pytest.mark.parametrize("over", [-1, 3601, "2"])
def test_a_length_that_no_transition_has_is_refused(server: Running, over: Any) -> None:
    created = server.create()
    reply = server.post(created, "/prompt", prompt=BLUE, over=over)
    server.delete(created)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid")


def test_a_clip_follows_its_timeline(server: Running, pipe: StreamingPipeline) -> None:
    """By the client, from a story; what the file says of itself is what was asked for."""
    story = f"story:\n- prompt: {PROMPT}\n- at: 0:02\n  prompt: {{{BLUE}: 1, {OTHER}: 3}}\n"
    script = Script.parse(story)
    timeline = {**script.timeline, "0.5": Change(BLUE, over=1.0)}
    with Client(server.url) as client:
        clip = b"".join(client.video(script.prompt, 45, seed=3, timeline=timeline))
    expected = pipe(PROMPT, num_frames=45, seed=3, timeline=timeline)
    with av.open(io.BytesIO(clip), "r") as container:
        made = json.loads(container.metadata["comment"])
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert made["timeline"] == expected.metadata["timeline"]
    assert made["timeline"]["0:00.5625"] == {"prompt": BLUE, "over": 1.0}
    assert shown.shape == expected.frames.shape


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        ([{"at": "soon", "prompt": BLUE}], "timeline[0]: a time is seconds"),
        ([{"at": 9, "prompt": BLUE}], "timeline[0] at 9.0 lies outside the video, which lasts 2.812 seconds"),
        ([{"at": 1, "prompt": BLUE}, {"at": 1.1, "prompt": OTHER}], "both begin with the chunk at"),
        ([{"at": "0:00", "prompt": BLUE}], "begins with the video"),
        (
            [{"at": i, "prompt": "a" * 1999} for i in range(1, 10)],
            "may have 16000 characters in all, got 17991",
        ),
    ],
)
def test_a_timeline_that_no_clip_can_have_is_refused(server: Running, timeline: Any, message: str) -> None:
    body = {"prompt": PROMPT, "num_frames": 45, "timeline": timeline}
    error = server.http.post("/v1/videos", json=body).json()["error"]
    assert error["code"] == "bad_timeline"
    assert message in error["message"]
    assert server.http.get("/v1/model").json()["sessions"] == 0


def test_a_timeline_has_a_number_of_changes(server: Running) -> None:
    body = {"prompt": "a", "timeline": [{"at": i, "prompt": "b"} for i in range(1, 258)]}
    error = server.http.post("/v1/videos", json=body).json()["error"]
    assert error["code"] == "invalid"
    assert "at most 256 items" in error["message"]


def test_the_client_blends_and_turns(server: Running) -> None:
    async def watch() -> None:
        async with (
            AsyncClient(server.url) as client,
            await client.create_session([(PROMPT, 1), (BLUE, 3)]) as s,
        ):
            await anext(s)
            reply = await s.set_prompt(MIX, over=1.5)
            assert reply.full_chunk == reply.chunk + 1
            assert reply.at_s is not None
            with pytest.raises(BadArgumentError, match="stands twice"):
                await s.set_prompt([(PROMPT, 1), (PROMPT, 2)])
            with pytest.raises(BadArgumentError, match="over"):
                await s.set_prompt(BLUE, over=-1.0)
            with pytest.raises(BadArgumentError, match="changes prompts, not adapters"):
                await anext(client.video(PROMPT, timeline={"1": Change(adapters={"style": 1.0})}))

    asyncio.run(asyncio.wait_for(watch(), TIMEOUT))
