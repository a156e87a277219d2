"""Sessions from beginning to end, over HTTP and WebSocket."""

from __future__ import annotations

import io
import json
import threading
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed

from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from tests.support.random_bundle import HEIGHT, WIDTH
from tests.support.running import BLUE, OTHER, PROMPT, Running, close_of, read, read_frames, read_until


def pixels(frames: list[Any]) -> np.ndarray:
    return np.stack([np.frombuffer(data, np.uint8).reshape(h.height, h.width, 3) for h, data in frames])


def test_a_session_shows_what_the_pipeline_makes(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=7, pace="max")
    with server.attach(created) as socket:
        hello = read(socket)
        assert (hello.type, hello.format, hello.session.id) == ("hello", "raw", created["id"])
        frames = read_frames(socket, 57)
        socket.send('{"type": "close"}')
        assert read_until(socket, "closing").reason == "closed"
        with pytest.raises(ConnectionClosed) as closed:
            read(socket)
        assert close_of(closed).code == 1000
    assert np.array_equal(pixels(frames), pipe(PROMPT, num_frames=57, seed=7).frames)
    headers = [header for header, _ in frames]
    assert [h.frame for h in headers] == list(range(57))
    assert [h.chunk for h in headers] == [0] * 9 + [1] * 12 + [2] * 12 + [3] * 12 + [4] * 12
    assert {h.frames_in_chunk for h in headers if h.chunk} == {12}
    assert headers[33].pts_s == 33 / 16
    assert {(h.width, h.height, h.format, h.prompt_id, h.dropped) for h in headers} == {
        (WIDTH, HEIGHT, "raw", 0, 0)
    }
    assert all(a.made_at <= b.made_at for a, b in pairwise(headers))
    assert all(h.compute_ms > 0 for h in headers)


def test_jpeg_frames(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=3)
    with server.attach(created, "jpeg") as socket:
        header, data = read_frames(socket, 1)[0]
    server.delete(created)
    assert header.format == "jpeg"
    expected = io.BytesIO()
    Image.fromarray(pipe(PROMPT, num_frames=1, seed=3).frames[0]).save(expected, "JPEG", quality=90)
    assert data == expected.getvalue()


def test_a_prompt_acts_at_the_chunk_the_reply_names(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=5, pace="max")
    with server.attach(created) as socket:
        read_frames(socket, 1)
        socket.send(json.dumps({"type": "prompt", "prompt": BLUE, "ref": "x"}))
        frames = []
        while True:  # the first frame is gone; every other one counts
            message = read(socket)
            if not isinstance(message, tuple):
                if message.type == "prompt":
                    break
            else:
                frames.append((message[0], bytes(message[1])))
        assert (message.ref, message.prompt_id) == ("x", 1)
        acts_at = message.chunk
        while not frames or frames[-1][0].chunk < acts_at + 1:
            frames += read_frames(socket, 1)
    server.delete(created)
    assert {h.prompt_id for h, _ in frames if h.chunk < acts_at} <= {0}
    assert {h.prompt_id for h, _ in frames if h.chunk >= acts_at} == {1}
    with pipe.stream(PROMPT, seed=5) as stream:
        expected = [next(stream).frames for _ in range(acts_at)]
        stream.prompt = BLUE
        expected += [next(stream).frames for _ in range(2)]
    whole = np.concatenate(expected)
    assert np.array_equal(pixels(frames), whole[1 : 1 + len(frames)])


def test_the_latest_prompt_wins(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=5, pace="max")
    with server.attach(created) as socket, server.model_held():
        replies = [server.post(created, "/prompt", prompt=text).json() for text in (BLUE, OTHER, BLUE, OTHER)]
    assert [reply["prompt_id"] for reply in replies] == [1, 2, 3, 4]
    assert len({reply["chunk"] for reply in replies}) == 1
    acts_at = replies[0]["chunk"]
    with server.attach(created) as socket:
        chunk = -1
        while chunk < acts_at:
            (header, data), *_ = read_frames(socket, 1)
            chunk = header.chunk
        assert header.prompt_id == 4
    server.delete(created)
    with pipe.stream(PROMPT, seed=5) as stream:
        for _ in range(acts_at):
            next(stream)
        stream.prompt = OTHER
        chunk_frames = next(stream).frames
    assert (
        np.frombuffer(data, np.uint8).tobytes()
        == chunk_frames[header.frame - 9 - 12 * (acts_at - 1)].tobytes()
    )


def test_pause_and_resume(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(seed=5, pace="max")
    with server.attach(created) as socket:
        frames = read_frames(socket, 9)
        socket.send('{"type": "pause", "ref": 7}')
        while True:
            message = read(socket)
            if isinstance(message, tuple):
                frames.append((message[0], bytes(message[1])))
            elif message.type == "state":
                break
        assert (message.state, message.ref) == ("paused", 7)
        stopped_at = message.chunk
        # What was finished still comes; then nothing, however often it is asked for.
        made = 9 + 12 * (stopped_at - 1)
        frames += read_frames(socket, made - len(frames))
        assert server.call(lambda: server.session(created).ready_at()) is None
        with pytest.raises(TimeoutError):
            socket.recv(0)
        reply = server.post(created, "/resume").json()
        assert (reply["state"], reply["chunk"]) == ("running", stopped_at)
        state = read(socket)
        assert (state.type, state.state, state.ref) == ("state", "running", None)
        frames += read_frames(socket, 12)
    server.delete(created)
    assert np.array_equal(pixels(frames), pipe(PROMPT, num_frames=len(frames), seed=5).frames)


def test_prompts_over_http_are_announced(server: Running) -> None:
    created = server.create()
    with server.attach(created) as socket:
        reply = server.post(created, "/prompt", prompt=BLUE, recache=True).json()
        message = read_until(socket, "prompt")
        assert (message.prompt_id, message.chunk, message.ref) == (reply["prompt_id"], reply["chunk"], None)
    server.delete(created)


def test_sizes_within_the_limit(server: Running, pipe: StreamingPipeline) -> None:
    created = server.create(height=16, width=64)
    assert (created["height"], created["width"]) == (16, 64)
    with server.attach(created) as socket:
        frames = read_frames(socket, 9)
    server.delete(created)
    assert np.array_equal(pixels(frames), pipe(PROMPT, num_frames=9, height=16, width=64).frames)


@pytest.mark.parametrize("num_frames", [1, 9, 40])
def test_a_clip_is_a_whole_mp4(server: Running, pipe: StreamingPipeline, num_frames: int) -> None:
    with server.http.stream(
        "POST", "/v1/videos", json={"prompt": PROMPT, "seed": 2, "num_frames": num_frames}
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "video/mp4"
        pieces = list(response.iter_raw())
    with av.open(io.BytesIO(b"".join(pieces)), "r") as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert container.streams.video[0].average_rate == 16
        assert json.loads(container.metadata["comment"]) == pipe.metadata(PROMPT, 2)
    expected = pipe(PROMPT, num_frames=num_frames, seed=2).frames
    assert frames.shape == expected.shape
    distances = np.abs(frames[:, None].astype(int) - expected).mean((2, 3, 4))
    assert np.array_equal(distances.argmin(1), np.arange(num_frames))
    assert server.http.get("/v1/model").json()["sessions"] == 0


def test_a_clip_comes_while_it_is_made(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    original, release, asked = Stream._compute, threading.Event(), []

    def gated(stream: Stream) -> Chunk | None:
        asked.append(stream)
        assert len(asked) <= 2 or release.wait(60)
        return original(stream)

    monkeypatch.setattr(Stream, "_compute", gated)
    body = {"prompt": PROMPT, "num_frames": 900}
    with server.http.stream("POST", "/v1/videos", json=body) as response:
        pieces = response.iter_raw()
        assert next(pieces)[4:8] == b"ftyp"
        assert server.http.get("/v1/model").json()["sessions"] == 1
    # The connection is closed: so is the session, chunk under way or not.
    server.wait_until(lambda: not server.registry.live)
    release.set()


def test_closing_over_http_tells_the_viewer(server: Running) -> None:
    created = server.create()
    with server.attach(created) as socket:
        read_frames(socket, 1)
        assert server.delete(created).status_code == 204
        assert read_until(socket, "closing").reason == "closed"
    assert server.delete(created).status_code == 404
    assert server.post(created, "/pause").status_code == 404
