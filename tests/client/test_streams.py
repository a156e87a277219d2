"""Streams that are broken, refused or never begin: an error of the client, in clear words."""

from __future__ import annotations

import socket

import pytest

from pyrf.client import (
    BadReplyError,
    ClientError,
    RefusedError,
    SessionLostError,
)
from pyrf.protocol import pack_frame
from tests.support.client_calls import HEADER
from tests.support.scripted_streams import GREETING, Streaming, watch, ws


def test_a_frame_of_our_own_server() -> None:
    frame = watch(Streaming(GREETING, ws(pack_frame(HEADER, bytes(12)), 2)))
    assert frame.pixels.shape == (2, 2, 3)


def hear(connection: socket.socket) -> None:
    """Go once the client has closed: for one who stays, it waits until its next ping, 20 seconds later."""
    connection.recv(65536)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([GREETING, ws(b"\x00", 2)], "broken frame: a frame message has at least"),
        ([GREETING, ws(b"\xff\xff\xff\xff", 2)], "broken frame"),
        ([GREETING, ws(pack_frame(HEADER, bytes(11)), 2)], "broken frame"),
        ([GREETING, ws(pack_frame(HEADER.model_copy(update={"height": -2}), bytes(12)), 2)], "broken frame"),
        (
            [GREETING, ws(pack_frame(HEADER.model_copy(update={"format": "jpeg"}), b"GIF89a"), 2)],
            "broken frame",
        ),
        ([GREETING, b"\x82\x7f" + (2**40).to_bytes(8, "big")], "what cannot be read"),
        ([GREETING, ws(b"\xff\xfe", 1)], "what cannot be read"),
        ([GREETING, b"\xff\x00"], "what cannot be read"),
        ([ws(b"hello", 1)], "first message is none of pyrf's"),
        ([ws(b"\x00\x01", 2)], "first message is none of pyrf's"),
        (
            [ws(b'{"type": "state", "state": "paused", "chunk": 1}', 1)],
            "the server began with state, not hello",
        ),
    ],
)
def test_streams_that_are_broken(frames: list[bytes], message: str) -> None:
    with pytest.raises(BadReplyError, match=message):
        watch(Streaming(*frames, after=hear))


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        ("403 Forbidden", RefusedError, "HTTP 403 Forbidden"),
        ("302 Found", BadReplyError, "answered HTTP 302"),
        ("200 OK", BadReplyError, "answered HTTP 200"),
        ("503 Full", SessionLostError, "no connection to session 0123abcd: the server answered HTTP 503"),
    ],
)
def test_handshakes_that_are_refused(status: str, kind: type[ClientError], message: str) -> None:
    server = Streaming(status=status)
    with pytest.raises(kind, match=message):
        watch(server)
    assert all("secret-of-the-session" not in head.split("\r\n")[0] for head in server.heads)


def test_a_server_that_greets_and_goes() -> None:
    """It is not attached to without end."""
    server = Streaming(GREETING, after=lambda connection: None)
    with pytest.raises(SessionLostError, match="no connection to session 0123abcd: the connection was lost"):
        watch(server)
    assert len(server.heads) < 12


def test_a_server_that_never_greets() -> None:
    with pytest.raises(SessionLostError, match="no connection to session 0123abcd"):
        watch(Streaming(), timeout=0.2)
