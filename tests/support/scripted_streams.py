"""A server whose sessions send over their WebSocket what a test says."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable
from typing import Any

from pyrf.client import AsyncClient
from tests.support.client_calls import CREATED, HELLO, run
from tests.support.misbehaving import Misbehaving, hang, reply
from tests.support.running import PROMPT, TIMEOUT


def ws(payload: bytes, opcode: int) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload


GREETING = ws(HELLO.encode(), 1)


class Streaming(Misbehaving):
    """A server whose sessions send what a test says, once a WebSocket is open."""

    def __init__(
        self, *frames: bytes, status: str = "", after: Callable[[socket.socket], None] = hang
    ) -> None:
        self._frames, self._status, self._after = b"".join(frames), status, after
        super().__init__(reply(CREATED, "201 Created"), self._stream)

    def _stream(self, connection: socket.socket) -> None:
        if not self.heads[-1].startswith("GET"):
            connection.sendall(reply(b"", "204 No Content", Content_Length=""))
            return
        if self._status:
            connection.sendall(reply(b"", self._status, Location="http://127.0.0.1:1/"))
            return
        key = next(
            line[19:] for line in self.heads[-1].split("\r\n") if line.lower().startswith("sec-websocket-key")
        )
        accept = base64.b64encode(
            hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        )
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: pyrf.v1\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self._frames
        )
        self._after(connection)


def watch(server: Misbehaving, timeout: float = TIMEOUT) -> Any:
    """The first frame of a session; `timeout` is for its WebSocket alone."""

    async def main() -> Any:
        async with AsyncClient(server.url, patience=0, timeout=TIMEOUT) as client:
            session = await client.create_session(PROMPT)
            client._calls.timeout = timeout
            return await anext(session)

    with server:
        return run(main())
