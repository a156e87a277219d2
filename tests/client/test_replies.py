"""Servers that answer wrongly, slowly or not at all: an error of the client, in clear words."""

from __future__ import annotations

import re
import socket
import time
from contextlib import aclosing

import pytest

from pyrf.client import (
    AsyncClient,
    BadReplyError,
    ClientError,
    RefusedError,
    UnreachableError,
)
from tests.support.client_calls import CREATED, ERROR, INFO, ask, closed_port, create, run
from tests.support.misbehaving import Misbehaving, Script, hang, reply
from tests.support.running import PROMPT, TIMEOUT


def drip(connection: socket.socket) -> None:
    """A reply that never ends, and that no wait for a single byte notices."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (b"garbage\r\n\r\n", BadReplyError, "does not speak HTTP as expected"),
        (b"\x00\xff" * 50_000, ClientError, "127.0.0.1"),
        (b"", UnreachableError, "no answer from http://127.0.0.1"),
        (reply({"model": "x"}), BadReplyError, "answered GET /v1/model with no ServerInfo"),
        (reply([]), BadReplyError, "with no ServerInfo"),
        (reply(b'{"version": "1", "mod'), BadReplyError, "with no ServerInfo"),
        (reply(INFO)[:-20], UnreachableError, "no answer from"),
        (reply(b"<html>hello</html>", Content_Type="text/html"), BadReplyError, "with no ServerInfo"),
        (reply(b"\xff\xfe{}"), BadReplyError, "with no ServerInfo"),
        (reply(b"", Content_Encoding="gzip"), BadReplyError, "with no ServerInfo"),
        (reply(b"no gzip", Content_Encoding="gzip"), BadReplyError, "does not speak HTTP"),
        (reply(b" " * (2**20 + 1)), BadReplyError, "exceeds 1048576 bytes"),
        (reply(b"", "302 Found", Location="http://evil.example/"), BadReplyError, "HTTP 302, to http://evil"),
        (reply(b"", "301 Moved"), BadReplyError, "HTTP 301, to nowhere"),
        (reply(b"", "204 No Content", Content_Length=""), BadReplyError, "with no ServerInfo"),
        (reply(b"<html>", "502 Bad Gateway"), RefusedError, "HTTP 502 Bad Gateway"),
        (reply(b"x" * (2**20 + 1), "500 Oops"), BadReplyError, "exceeds 1048576 bytes"),
        (reply(ERROR, "404 Not Found"), RefusedError, "all sessions are taken"),
    ],
)
def test_replies_that_are_none(script: Script, kind: type[ClientError], message: str) -> None:
    with Misbehaving(script) as server, pytest.raises(kind, match=re.escape(message)) as failed:
        run(ask(server.url))
    if kind is not RefusedError:
        assert failed.value.__cause__ is not None or "exceeds" in message or "HTTP" in message


@pytest.mark.parametrize("script", [hang, drip], ids=["silent", "dripping"])
def test_a_slow_server(script: Script) -> None:
    with (
        Misbehaving(script) as server,
        pytest.raises(UnreachableError, match=r"did not answer within 0\.3 s"),
    ):
        run(ask(server.url, timeout=0.3))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_there(host: str) -> None:
    for call in (ask, create):
        with pytest.raises(UnreachableError, match=f"no answer from http://{host}:") as failed:
            run(call(f"http://{host}:{closed_port()}"))
        assert failed.value.__cause__ is not None
    with pytest.raises(UnreachableError, match=r"no-such-host\.invalid"):
        run(ask("http://no-such-host.invalid"))
    with pytest.raises(UnreachableError, match="no answer from unix:/nowhere"):
        run(ask("unix:/nowhere.sock"))


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (reply(b"<html>", Content_Type="text/html"), BadReplyError, "with text/html, not a video"),
        (reply(b"a" * 99, Content_Type="video/mp4", Content_Length="200"), UnreachableError, "no answer"),
        (reply(ERROR, "503 Full"), RefusedError, "all sessions are taken"),
        (hang, UnreachableError, "did not answer within"),
    ],
)
def test_clips(script: Script, kind: type[ClientError], message: str) -> None:
    async def fetch(url: str) -> None:
        async with (
            AsyncClient(url, patience=0, timeout=1 if script is hang else TIMEOUT) as client,
            aclosing(client.video(PROMPT)) as pieces,
        ):
            async for _ in pieces:
                pass

    with Misbehaving(script) as server, pytest.raises(kind, match=message):
        run(fetch(server.url))


@pytest.mark.parametrize(
    "fields",
    [{"id": "../../v1/model"}, {"id": "a\r\nX: y"}, {"id": ""}, {"token": "a\r\nX: y"}, {"token": "a b"}],
)
def test_sessions_that_pyrf_never_gives(fields: dict[str, str]) -> None:
    message = "an id or token that pyrf never gives"
    with (
        Misbehaving(reply({**CREATED, **fields}, "201 Created")) as server,
        pytest.raises(BadReplyError, match=message),
    ):
        run(create(server.url))
