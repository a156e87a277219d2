"""Nonsense over HTTP and WebSocket: nothing is a server error, and no session dies of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from websockets.exceptions import ConnectionClosed

from pyrf.pipeline import StreamingPipeline
from pyrf.serve.settings import ServeSettings
from tests.support.running import BLUE, Running, read, read_frames

CALM = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]


@pytest.fixture(scope="module")
def server(pipe: StreamingPipeline) -> Iterator[Running]:
    """A server whose sessions do not expire while no test looks at them."""
    with Running(
        pipe, ServeSettings(grace_s=600, creates_per_minute=1e5, controls_per_second=1e4)
    ) as running:
        yield running


@pytest.fixture(scope="module")
def watched(server: Running) -> Iterator[dict[str, Any]]:
    """A session that must outlive everything in this file."""
    created = server.create(seed=1)
    yield created
    assert server.http.get("/health/ready").status_code == 200
    with server.attach(created) as socket:
        assert len(read_frames(socket, 24)) == 24
    server.delete(created)


schemathesis.serializer.alias(["application/sdp", "application/trickle-ice-sdpfrag"], "text/plain")
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


def test_http(server: Running, watched: dict[str, Any]) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    # A clip of random length costs more than it tells.
    found = list(schema.exclude(path="/v1/videos").get_all_operations())
    operations = [each.ok() for each in found if isinstance(each, Ok)]
    assert len(operations) == len(found)
    assert len(operations) >= 10
    for operation in operations:

        @given(operation.as_strategy(), st.booleans())
        @settings(max_examples=8, suppress_health_check=CALM, derandomize=True)
        def check(case: schemathesis.Case[Any], reach: bool) -> None:
            if reach and "id" in case.path_parameters and case.method != "DELETE":
                case.path_parameters["id"] = watched["id"]
                case.headers["Authorization"] = f"Bearer {watched['token']}"
            response = case.call()
            case.validate_response(response, checks=CHECKS)
            if response.status_code == 201:
                server.delete(response.json())

        check()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
controls = st.fixed_dictionaries(
    {"type": st.sampled_from(["prompt", "pause", "resume", "Close", "", None, 1]) | json_values},
    optional={"prompt": st.text(max_size=40) | json_values, "recache": json_values, "ref": json_values},
)
messages = (
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace").decode())
    | st.binary(max_size=200)
    | json_values.map(json.dumps)
    | controls.map(json.dumps)
)


@given(st.lists(messages, max_size=20))
@settings(max_examples=30, suppress_health_check=CALM, derandomize=True)
def test_websocket_messages(server: Running, watched: dict[str, Any], sent: list[str | bytes]) -> None:
    with server.attach(watched, close_timeout=0.1) as socket:
        for message in sent:
            socket.send(message)
        socket.send(json.dumps({"type": "resume", "ref": "mark"}))
        replies = 0
        while True:  # every message has its reply, and then the session still does as it is told
            message = read(socket)
            if isinstance(message, tuple) or message.type == "hello":
                continue
            assert message.type in ("error", "state", "prompt")
            if message.ref == "mark":
                break
            replies += 1
        assert replies == len(sent)
        assert server.post(watched, "/prompt", prompt=BLUE).status_code == 200


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6))
@settings(max_examples=20, suppress_health_check=CALM, derandomize=True)
def test_broken_websocket_frames(server: Running, watched: dict[str, Any], pieces: list[bytes]) -> None:
    """Bytes that are no WebSocket frames end the connection, not the session."""
    with suppress(ConnectionClosed, OSError), server.attach(watched, close_timeout=0.05) as socket:
        for piece in pieces:
            socket.socket.sendall(piece)
    session = server.session(watched)
    assert session is not None
    assert session.ending is None
