"""Clients that do not behave: raw sockets, from an address of their own where a test wants it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.support.running import TIMEOUT

OTHER_ADDRESS = "127.0.0.2"
"""All of 127.0.0.0/8 is this machine, so that a test can come from several addresses."""
HEADER = b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\n"
"""Of a request that its last line is missing from."""


def dial(url: str, source: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
    """A connection to a server."""
    sock = socket.socket()
    sock.settimeout(TIMEOUT)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.bind((source, 0))
    parts = urlsplit(url)
    sock.connect((parts.hostname, parts.port))
    return sock


@contextmanager
def half_open(url: str, count: int, source: str = "127.0.0.1", sent: bytes = HEADER) -> Iterator[list[Any]]:
    """Connections that have sent this and no more; they are closed afterwards."""
    with ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(dial(url, source))
            sock.sendall(sent)
            socks.append(sock)
        yield socks


def rest(sock: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def ask(sock: socket.socket, request: bytes = HEADER + b"\r\n") -> bytes:
    """The reply to a request; the connection stays open."""
    sock.sendall(request)
    head, _, body = _until(sock, b"", lambda data: b"\r\n\r\n" in data).partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split()[0])
    return head + b"\r\n\r\n" + _until(sock, body, lambda data: len(data) >= length)


def _until(sock: socket.socket, data: bytes, is_whole: Callable[[bytes], bool]) -> bytes:
    while not is_whole(data):
        part = sock.recv(65536)
        if not part:
            raise ConnectionError("the server has closed the connection")
        data += part
    return data


def is_cut(sock: socket.socket) -> bool:
    """Whether the server has closed a connection by now."""
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        sock.settimeout(TIMEOUT)
