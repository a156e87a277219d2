"""Strengths of adapters that viewers change: over the WebSocket, over HTTP, by the client, and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from pyrf.client import Client, RefusedError
from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support import adapters
from tests.support.running import PROMPT, ROOMY, Running, read, read_frames, read_until
from tests.support.serving import serving


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters") / "ink.safetensors"
    save_file(adapters.keys("comfy", adapters.factors((*adapters.LINEARS, *adapters.REST))), path)
    return path


@pytest.fixture(scope="module")
def inked(random_bundle: Path, file: Path) -> StreamingPipeline:
    """The pipeline that servers have here; each test leaves its strength at 0.25."""
    return StreamingPipeline.from_pretrained(str(random_bundle), adapters=[(file, 0.25)])


@contextmanager
def running(pipe: StreamingPipeline, **settings: Any) -> Iterator[Running]:
    with Running(pipe, ServeSettings(**{**ROOMY, **settings})) as server:
        yield server


def expected(random_bundle: Path, file: Path, strengths: list[float]) -> np.ndarray:
    """Frames of a stream that has these strengths at its chunks."""
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), adapters=[(file, strengths[0])])
    frames = []
    with pipe.stream(PROMPT, 5) as stream:
        for strength in strengths:
            stream.set_adapters({"ink": strength})
            frames.append(next(stream).frames)
    return np.concatenate(frames)


def test_a_strength_acts_at_the_chunk_the_reply_names(
    inked: StreamingPipeline, random_bundle: Path, file: Path
) -> None:
    with running(inked, max_sessions=1) as server:
        told = server.http.get("/v1/model").json()
        assert told["adapters"] == [{"name": "ink", "strength": 0.25}]
        assert told["adapters_live"] is True
        created = server.create(seed=5, pace="max")
        frames, acts_at = [], None
        with server.attach(created) as socket:
            read_frames(socket, 1)
            socket.send(json.dumps({"type": "adapters", "strengths": {"ink": 1.0}, "ref": 3}))
            while acts_at is None or frames[-1][0].chunk <= acts_at:
                message = read(socket)
                if isinstance(message, tuple):
                    frames.append(message)
                elif message.type == "adapters":
                    assert (message.ref, message.strengths) == (3, {"ink": 1.0})
                    acts_at = message.chunk
            assert server.http.get("/v1/model").json()["adapters"] == [{"name": "ink", "strength": 1.0}]
            reply = server.post(created, "/adapters", strengths={"ink": -0.5})
            assert reply.json()["strengths"] == {"ink": -0.5}
            assert read_until(socket, "adapters").strengths == {"ink": -0.5}
        server.delete(created)
        server.wait_until(lambda: not server.registry.live)
        # The next viewer finds the server's own strengths.
        server.delete(server.create())
        assert server.http.get("/v1/model").json()["adapters"] == [{"name": "ink", "strength": 0.25}]
    inked.set_adapters({"ink": 0.25})
    assert acts_at is not None
    whole = expected(random_bundle, file, [0.25] * acts_at + [1.0] * 2)
    pixels = [np.frombuffer(data, np.uint8).reshape(h.height, h.width, 3) for h, data in frames]
    for (header, _), frame in zip(frames, pixels):
        if header.chunk <= acts_at:
            assert np.array_equal(frame, whole[header.frame]), header.frame


def test_viewers_that_share_the_weights_do_not_change_them(inked: StreamingPipeline) -> None:
    with running(inked, max_sessions=2) as server, Client(server.url) as client:
        assert client.server_info().adapters_live is False
        with client.create_session(PROMPT) as session:
            with pytest.raises(RefusedError, match="start it with --shared-adapters") as refused:
                session.set_adapters({"ink": 1.0})
            assert (refused.value.status, refused.value.code) == (409, "adapters_fixed")
            with pytest.raises(RefusedError, match="no adapter 'snow'; there are: 'ink'") as refused:
                session.set_adapters({"snow": 1.0})
            assert (refused.value.status, refused.value.code) == (422, "bad_adapter")
    assert inked.adapters == {"ink": 0.25}


def test_shared_adapters_tell_every_viewer(inked: StreamingPipeline) -> None:
    with running(inked, max_sessions=2, shared_adapters=True) as server, Client(server.url) as client:
        assert client.server_info().adapters_live is True
        other = server.create(pace="max")
        with server.attach(other) as socket, client.create_session(PROMPT, pace="max") as session:
            reply = session.set_adapters({"ink": 0.75})
            assert reply.strengths == {"ink": 0.75}
            assert read_until(socket, "adapters").strengths == {"ink": 0.75}
            for frame in session:
                if frame.header.chunk >= reply.chunk:
                    break
            assert inked.adapters == {"ink": 0.75}
            session.set_adapters({"ink": 0.25})
            read_frames(socket, 30)
        server.delete(other)
    inked.set_adapters({"ink": 0.25})


def test_bad_messages(inked: StreamingPipeline) -> None:
    with running(inked, max_sessions=1) as server:
        created = server.create()
        for body in (
            {"strengths": {"ink": 11}},
            {"strengths": {"ink": "much"}},
            {"strengths": {"ink" * 30: 1}},
            {"strengths": {f"a{i}": 1 for i in range(65)}},
            {"strengths": [1]},
            {},
        ):
            reply = server.post(created, "/adapters", **body)
            assert reply.status_code in (400, 422), body
            assert reply.json()["error"]["code"] in ("invalid", "bad_request"), body
        with server.attach(created) as socket:
            socket.send('{"type": "adapters", "strengths": {"ink": 1e999}}')
            assert read_until(socket, "error").error.code == "invalid"
        server.delete(created)


def test_a_server_without_adapters(server: Running) -> None:
    told = server.http.get("/v1/model").json()
    assert (told["adapters"], told["adapters_live"]) == ([], False)
    created = server.create()
    reply = server.post(created, "/adapters", strengths={"ink": 1.0})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "bad_adapter")
    server.delete(created)


def test_the_command(random_bundle: Path, file: Path) -> None:
    options = ("--model", str(random_bundle), "--lora", f"style={file}:0.5", "--max-sessions", "1")
    with serving(*options) as (_, url), Client(url) as client:
        (adapter,) = client.server_info().adapters
        assert (adapter.name, adapter.strength) == ("style", 0.5)
        with client.create_session(PROMPT) as session:
            assert session.set_adapters({"style": 0.0}).strengths == {"style": 0.0}
