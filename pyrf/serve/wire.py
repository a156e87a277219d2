"""HTTP and WebSocket as uvicorn speaks them, with a bound on what clients can make it wait for or keep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from pyrf.serve.connections import Connection, Connections
from pyrf.serve.errors import ServeError, error_response
from pyrf.serve.sessions.rates import RateLimit

READ_BYTES = 4096
"""Bytes that are parsed before bounds are looked at."""
STRAY_FRAMES_PER_S, STRAY_FRAMES_AT_ONCE = 20.0, 400.0
"""Frames of a WebSocket that are no whole message: pings, pongs and fragments."""
BUSY_RETRY_S = 5.0


class HealthOnly:
    """An app of which only questions after health are answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A proxy may have kept the path of a larger site before it.
        if scope["type"] == "http" and scope["path"].endswith(("/health/live", "/health/ready")):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            error = ServeError(503, "busy", "all connections are taken; try again later", BUSY_RETRY_S)
            await error_response(error)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1013, "reason": "all connections are taken"})


def _bind(connection: Connection, protocol: Any, transport: asyncio.Transport) -> None:
    """Let the connection act on what it is made of."""
    connection.abort = transport.abort
    connection.unsent = transport.get_write_buffer_size
    connection.is_closing = transport.is_closing
    connection.expire = protocol.expire


def _slices(data: bytes) -> Iterator[bytes]:
    return (data[start : start + READ_BYTES] for start in range(0, len(data), READ_BYTES))


class _Watched(asyncio.Protocol):
    """What both protocols tell of their connection."""

    _connection: Connection
    _connections: Connections

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connection.stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connection.flow()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.remove(self._connection)


class Http(_Watched, H11Protocol):
    """HTTP/1.1 on a connection that is looked after.

    Args:
        connection: what it tells of.
        connections: of which that is part.
        options: uvicorn's.
    """

    def __init__(self, connection: Connection, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connection, self._connections = connection, connections
        self._upgraded = self._has_asked = False
        # It is only ever called.
        self.ws_protocol_class = cast("type[asyncio.Protocol]", partial(WebSocket, connection, connections))
        if connection.is_reserved:
            self.app = HealthOnly(self.app)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _bind(self._connection, self, transport)
        self._connection.enter("header", anew=True)

    def data_received(self, data: bytes) -> None:
        for part in _slices(data):
            super().data_received(part)
            if self._upgraded or self.transport.is_closing():
                return
        self._tell()

    def on_response_complete(self) -> None:
        """Take the next request; one of an address that sends too many waits, and is not read before."""
        held_s = self._connections.hold_back_s(self._connection)
        if held_s and self.conn.our_state is h11.DONE:
            self._connection.enter("idle", anew=True)
            self.loop.call_later(held_s, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        super().on_response_complete()
        if not self._upgraded:
            self._tell(anew=True)

    def _tell(self, anew: bool = False) -> None:
        """Tell what the connection does."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._connection.enter("body", anew=anew)
        elif state is not h11.IDLE:
            self._has_asked = True
            self._connection.enter("busy", anew=anew)
        elif self.conn.trailing_data[0] or not self._has_asked:
            self._connection.enter("header", anew=anew)
        else:
            self._connection.enter("idle", anew=anew)

    def expire(self, limit_s: float) -> None:
        """Say that the request took too long; a client that has sent none would not understand it."""
        phase, cycle = self._connection.phase, self.cycle
        has_begun = phase == "body" or (phase == "header" and self.conn.trailing_data[0])
        is_answered = cycle is not None and cycle.response_started and not cycle.response_complete
        if has_begun and not is_answered:
            message = f"the {phase} of a request must be whole within {limit_s:g} s"
            self._refuse(408, "Request Timeout", "timeout", message)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too long a header; the client gets the body that all errors have."""
        limit = self.config.h11_max_incomplete_event_size or 0
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            pass  # a reply is under way
        elif len(self.conn.trailing_data[0]) > limit:
            message = f"a header may have {limit} bytes; send less"
            self._refuse(431, "Request Header Fields Too Large", "too_large", message)
        else:
            self._refuse(400, "Bad Request", "bad_request", "this is no HTTP request")
        self.transport.close()

    def _refuse(self, status: int, phrase: str, code: str, message: str) -> None:
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
            f"X-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._upgraded = True
        super().handle_websocket_upgrade(event)


class WebSocket(_Watched, WebSocketsSansIOProtocol):
    """A WebSocket on a connection that is looked after."""

    def __init__(self, connection: Connection, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connection, self._connections = connection, connections
        self._unparsed = self._pong = b""
        self._stray = RateLimit(STRAY_FRAMES_PER_S, STRAY_FRAMES_AT_ONCE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _bind(self._connection, self, self.transport)
        self._connection.enter("busy")

    def data_received(self, data: bytes) -> None:
        """Parse until there is a message; the rest waits until the app has taken it."""
        self._unparsed += data
        while self._unparsed and not self.read_paused and not self.transport.is_closing():
            part, self._unparsed = self._unparsed[:READ_BYTES], self._unparsed[READ_BYTES:]
            super().data_received(part)
        self._tell()

    def _tell(self) -> None:
        """Tell what the connection does; one that waits for the client's goodbye may go at any time."""
        if self.close_sent:
            self._connection.enter("closing")
        elif (self.frames or self.conn.reader.buffer) and not self.read_paused:
            self._connection.enter("message")
        else:
            self._connection.enter("busy")

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.close":
            self._tell()

    async def receive(self) -> Any:
        message = await super().receive()
        if self._unparsed and not self.read_paused:
            self.data_received(b"")
        return message

    def handle_ping(self) -> None:
        """Answer, unless the client does not read; of many pings the last one is answered then."""
        if self._is_stray():
            return
        if self.writable.is_set():
            super().handle_ping()
        else:
            self._pong = b"".join(self.conn.data_to_send())

    def handle_pong(self, event: Any) -> None:
        if not self._is_stray():
            super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        if not self._is_stray():
            super().handle_cont(event)

    def _is_stray(self) -> bool:
        """Count a frame that is no whole message; whether there were too many, and the end has come."""
        if self.close_sent or not self._stray.wait_for(""):
            return self.close_sent
        self._fail("too many frames that are no messages")
        return True

    def expire(self, limit_s: float) -> None:
        """Say that a message took too long."""
        self._fail(f"a message must be whole within {limit_s:g} s")

    def _fail(self, reason: str) -> None:
        self.conn.fail(1008, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._pong and not self.transport.is_closing():
            pong, self._pong = self._pong, b""
            self.transport.write(pong)
