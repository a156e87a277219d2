"""The WebSocket of a session: attached, with patience, and closed whatever happens."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpx
from pydantic import ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from pyrf.client.address import Address
from pyrf.client.errors import BadReplyError, ClientError, SessionLostError, UnreachableError
from pyrf.client.http import refusal
from pyrf.protocol import (
    MESSAGE,
    NO_SESSION_CODE,
    SUBPROTOCOL,
    TOKEN_SUBPROTOCOL,
    FrameFormat,
    HelloMessage,
    SessionCreated,
)

CLOSE_S = 0.5
"""Seconds to wait for the other side's goodbye; it may stand behind frames that nobody reads."""
HEADER_BYTES = 65536
"""Of a message, beside the pixels of a frame."""
MAX_MESSAGE_BYTES = 2**28


class _Connect(connect):
    """Follows no redirect: it would take the session's token elsewhere."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def attach(
    address: Address, created: SessionCreated, format: FrameFormat, timeout: float
) -> ClientConnection:
    """A session's WebSocket, which has said hello.

    Raises:
        UnreachableError: when trying again may help.
        SessionLostError: when the session is gone.
        RefusedError: when the server takes no such connection.
        BadReplyError: when what answers is no server of pyrf.
    """
    options: dict[str, Any] = {"ssl": address.tls} if address.tls else {}
    if address.uds:
        options |= {"unix": True, "path": address.uds}
    try:
        socket = await _Connect(
            f"{address.ws}/v1/sessions/{created.id}/ws?format={format}",
            subprotocols=[Subprotocol(SUBPROTOCOL), Subprotocol(TOKEN_SUBPROTOCOL + created.token)],
            compression=None,
            max_size=min(MAX_MESSAGE_BYTES, 3 * created.height * created.width + HEADER_BYTES),
            open_timeout=timeout,
            close_timeout=CLOSE_S,
            proxy=address.proxy,
            **options,
        )
    except Exception as error:
        raise attach_error(error) from error
    try:
        async with asyncio.timeout(timeout):
            hello = MESSAGE.validate_json(await socket.recv())
        if not isinstance(hello, HelloMessage):
            raise BadReplyError(f"the server began with {hello.type}, not hello")
    except BaseException as error:
        socket.transport.abort()
        if isinstance(error, ClientError) or not isinstance(error, Exception):
            raise
        raise attach_error(error) from error
    return socket


def attach_error(error: Exception) -> ClientError:
    """What an error of a WebSocket means; `UnreachableError` is worth another try."""
    if isinstance(error, ConnectionClosed):
        if error.rcvd and error.rcvd.code == NO_SESSION_CODE:
            return SessionLostError(error.rcvd.reason)
        if error.sent and error.sent.code in (1002, 1007, 1009):  # it is this side that would not go on
            return BadReplyError(f"the server sent what cannot be read: {error.sent.reason or error}")
        return UnreachableError(f"the connection was lost: {error}")
    if isinstance(error, InvalidStatus):
        status, body = error.response.status_code, bytes(error.response.body or b"")
        if status >= 500 or status == 429:
            return UnreachableError(f"the server answered HTTP {status}")
        if status >= 400:
            return refusal(status, httpx.Headers(list(error.response.headers.raw_items())), body)
        return BadReplyError(f"the server answered HTTP {status}; give the client the server's own URL")
    if isinstance(error, ssl.SSLCertVerificationError):
        return BadReplyError(f"the server's certificate is not trusted: {error.verify_message}")
    if isinstance(error, ValidationError | UnicodeDecodeError):
        return BadReplyError("the server's first message is none of pyrf's")
    if isinstance(error, OSError | WebSocketException | EOFError):
        return UnreachableError(f"no connection: {' '.join(str(error).split()) or type(error).__name__}")
    return ClientError(f"no connection: {type(error).__name__}: {error}")
