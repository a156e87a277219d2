"""Where the token of a session's WebSocket comes from, as a browser cannot set its headers.

It is asked for as a subprotocol. An address ends up in logs, traces and the history of browsers, so a token
that still comes in one is taken out of it before anything else sees the request.
"""

from __future__ import annotations

import logging
from urllib.parse import unquote_plus

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from pyrf.protocol import SUBPROTOCOL, TOKEN_SUBPROTOCOL

logger = logging.getLogger(__name__)

_QUERY_TOKEN = "pyrf.query_token"
"""Key of a scope."""


def take_query_token(scope: Scope) -> None:
    """Move the query's `token` to a key of the scope that no log or trace knows, in place."""
    query: bytes = scope.get("query_string", b"")
    if not query:
        return
    kept = []
    for part in query.split(b"&"):
        name, _, value = part.decode("latin-1").partition("=")
        if unquote_plus(name).strip().lower() in ("token", "access_token"):
            scope[_QUERY_TOKEN] = unquote_plus(value)
        else:
            kept.append(part)
    scope["query_string"] = b"&".join(kept)


class CleanAddresses:
    """A base of the app's class: no middleware is further out, tracers of the app included."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            take_query_token(scope)
        await super().__call__(scope, receive, send)  # type: ignore[misc]  # the app's class follows


async def accept(websocket: WebSocket) -> str | None:
    """Accept a WebSocket, and find the token that it came with, if any."""
    offered: list[str] = websocket.scope.get("subprotocols") or []
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    scheme, _, credentials = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    for protocol in offered:
        if protocol.startswith(TOKEN_SUBPROTOCOL):
            return protocol.removeprefix(TOKEN_SUBPROTOCOL)
    token: str | None = websocket.scope.get(_QUERY_TOKEN)
    if token is not None:
        logger.warning(
            "a token came in the address of a WebSocket, which the next release refuses; "
            f"ask for the subprotocols {SUBPROTOCOL} and {TOKEN_SUBPROTOCOL}TOKEN instead"
        )
    return token
