"""Where a WebSocket's token may come from, and where it may never be seen."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Scope
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from pyrf.client import Client
from pyrf.protocol import IceServer, SessionCreated
from pyrf.serve.handshake import take_query_token
from pyrf.serve.settings import ServeSettings
from tests.support.running import PROMPT, TIMEOUT, Running, close_of, read

V1 = Subprotocol("pyrf.v1")


def address(server: Running, created: dict[str, Any], query: str = "") -> str:
    return f"{server.url.replace('http', 'ws')}/v1/sessions/{created['id']}/ws{query}"


def token_protocol(token: str) -> Subprotocol:
    return Subprotocol(f"pyrf.token.{token}")


@pytest.mark.parametrize("token_first", [False, True])
def test_the_token_is_a_subprotocol(server: Running, token_first: bool) -> None:
    created = server.create()
    protocols = [V1, token_protocol(created["token"])]
    with connect(address(server, created), subprotocols=protocols[:: -1 if token_first else 1]) as socket:
        assert read(socket).type == "hello"
        assert socket.subprotocol == V1  # the token is not said again
        assert socket.response is not None
        assert created["token"] not in str(socket.response.headers)
    server.delete(created)


@pytest.mark.parametrize("token", ["", "wrong", "pyrf.v1"])
def test_a_wrong_token_is_refused(server: Running, token: str) -> None:
    created = server.create()
    with (
        connect(address(server, created), subprotocols=[V1, token_protocol(token)]) as socket,
        pytest.raises(ConnectionClosed) as closed,
    ):
        socket.recv(TIMEOUT)
    assert close_of(closed).code == 4404
    server.delete(created)


def test_other_subprotocols_are_not_taken(server: Running) -> None:
    created = server.create()
    headers = {"Authorization": f"Bearer {created['token']}"}
    other = [Subprotocol("mqtt")]
    with connect(address(server, created), subprotocols=other, additional_headers=headers) as socket:
        assert read(socket).type == "hello"
        assert socket.subprotocol is None
    server.delete(created)


@pytest.mark.parametrize(
    ("query", "left", "token"),
    [
        (b"token=abc", b"", "abc"),
        (b"format=raw&token=a%2Bb", b"format=raw", "a+b"),
        (b"%74oken=abc&x=%26", b"x=%26", "abc"),
        (b"TOKEN=abc", b"", "abc"),
        (b"access_token=abc&format=raw", b"format=raw", "abc"),
        (b"token=abc&token=def", b"", "def"),
        (b"+token=abc", b"", "abc"),
        (b"token", b"", ""),
        (b"format=raw&mytoken=1", b"format=raw&mytoken=1", None),
        (b"\xff=\xfe&&", b"\xff=\xfe&&", None),
        (b"", b"", None),
    ],
)
def test_a_token_is_taken_out_of_the_address(query: bytes, left: bytes, token: str | None) -> None:
    scope: Scope = {"type": "websocket", "query_string": query}
    take_query_token(scope)
    assert scope["query_string"] == left
    assert scope.get("pyrf.query_token") == token


@pytest.fixture
def spans() -> Iterator[tuple[InMemorySpanExporter, TracerProvider]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter, provider
    provider.shutdown()


@pytest.mark.parametrize("semantics", ["", "http", "http/dup"])
def test_a_token_in_the_address_still_lets_in_but_is_seen_nowhere(
    serve: Callable[..., Running],
    spans: tuple[InMemorySpanExporter, TracerProvider],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    semantics: str,
) -> None:
    exporter, provider = spans
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "pyrf")
    monkeypatch.setattr(logging.getLogger("httpx"), "disabled", True)  # the test's own client
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", semantics)
    server = serve(token="the-server-token")
    server.http.headers["Authorization"] = "Bearer the-server-token"
    created = server.create()
    # As `opentelemetry-instrument` does; the stack is built anew for it.
    FastAPIInstrumentor.instrument_app(server.app, tracer_provider=provider)
    server.app.middleware_stack = server.app.build_middleware_stack()
    token = created["token"]
    for query in (f"?format=raw&token={token}", f"?%74oken={quote(token)}", f"?TOKEN={token}"):
        with connect(address(server, created, query)) as socket:
            assert read(socket).type == "hello"
    wrong = address(server, created, f"?token=wrong-{token}")
    with connect(wrong) as socket, pytest.raises(ConnectionClosed):
        socket.recv(TIMEOUT)
    for path in ("/v1/model", "/nowhere", "/", "/docs", "/health/live"):
        server.http.get(f"{path}?token={token}&access_token=the-server-token")
    metrics = server.http.get("/metrics").text
    server.delete(created)
    told = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(told) > 8, told
    records = [json.dumps(vars(record), default=str) for record in caplog.records]
    assert sum("in the address of a WebSocket" in record for record in records) == 4
    seen = "\n".join((*told, *records, metrics))
    assert token not in seen
    assert "the-server-token" not in seen
    FastAPIInstrumentor.uninstrument_app(server.app)


def test_what_is_shown_of_an_object_holds_no_token(server: Running) -> None:
    created = server.create()
    reply = SessionCreated(**created)
    settings = ServeSettings(token="the-server-token", ice_servers=("turn:me:the-password@host",))
    turn = IceServer(urls="turn:host", username="me", credential="the-password")
    with Client(server.url, token="the-server-token") as client, client.create_session(PROMPT) as session:
        shown = [
            f"{value!r} {value} {value!s}"
            for value in (reply, settings, turn, client, session, session.created, server.session(created))
        ]
        shown += [repr(vars(client)), repr(vars(session))]
        with pytest.raises(ValueError, match="validation error") as invalid:
            SessionCreated.model_validate_json(json.dumps({**created, "chunk": "x"}))
        shown.append(str(invalid.value))
        secrets = (created["token"], session.created.token, "the-server-token", "the-password")
    server.delete(created)
    for text in shown:
        assert not any(secret in text for secret in secrets), text


def test_the_python_client_puts_no_token_into_an_address(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[bytes] = []
    inner = server.app.middleware_stack
    assert inner is not None

    async def listen(scope: Scope, receive: Any, send: Any) -> None:
        asked.append(repr((scope["path"], scope.get("query_string"), scope.get("pyrf.query_token"))).encode())
        await inner(scope, receive, send)

    server.app.middleware_stack = listen
    try:
        with Client(server.url) as client, client.create_session(PROMPT) as session:
            next(iter(session))
            token = session.created.token
    finally:
        server.app.middleware_stack = inner
    assert len(asked) >= 3
    assert token.encode() not in b"".join(asked)
    assert token not in caplog.text
