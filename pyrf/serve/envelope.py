"""What every request and reply has, whatever becomes of it: an id, careful headers, a line for a refusal."""

from __future__ import annotations

import logging
import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyrf.protocol import NO_SESSION_CODE
from pyrf.serve.address import client_address

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""An id that a proxy gave, and that is kept; anything else is replaced, as it ends up in logs."""
_NOTE = "pyrf.note"
"""Key of a scope."""
_WATCH_KEY = re.compile(r"(/watch/)[^/]+")
"""What opens a stream to watch; the log does not tell it."""
IS_HEAD = "pyrf.is_head"
"""Key of a scope: whether nobody waits for the body of the reply."""
LONGEST_PATH = 200
"""Characters of a path in the log."""
_DISTRUST = {401, 403, 429}
"""Statuses whose line is a warning."""

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""Id of the request that this code runs for, or was begun by."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = "default-src 'none'; frame-ancestors 'none'"
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""For the OpenAPI page, which is the only HTML without a policy of its own; its script stands in the page."""


@dataclass
class Note:
    """What is known of a request.

    Attributes:
        id: the request's.
        code: of the refusal, if it was refused.
        key: name of the API key that was shown, if it is one.
    """

    id: str
    code: str | None = None
    key: str | None = None


def note_refusal(scope: Scope, code: str) -> None:
    """Say why a request is refused, for its line in the log."""
    if isinstance(note := scope.get(_NOTE), Note):
        note.code = code


def note_key(scope: Scope, name: str) -> None:
    """Say which API key was shown, for the same line."""
    if isinstance(note := scope.get(_NOTE), Note):
        note.key = name


class Envelope:
    """Stands before everything else of an app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        note = Note(given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8))
        # HEAD is GET without the body, for all that GET answers.
        is_head = scope.get("method") == "HEAD"
        inner = {**scope, _NOTE: note, IS_HEAD: is_head, **({"method": "GET"} if is_head else {})}

        async def answer(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                _complete(MutableHeaders(scope=message), note.id)
                if message["status"] >= 400:
                    _log_refusal(inner, note, message["status"])
            elif message["type"] == "websocket.accept":
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                headers[REQUEST_ID] = note.id
                message = {**message, "headers": headers.raw}
            elif message["type"] == "websocket.close" and message.get("code") in (1008, NO_SESSION_CODE):
                if note.code is not None:
                    _log_refusal(inner, note, message["code"])
            elif message["type"] == "http.response.body" and is_head:
                message = {**message, "body": b""}
            await send(message)

        token = current_request.set(note.id)
        try:
            await self._app(inner, receive, answer)
        finally:
            current_request.reset(token)


def _complete(headers: MutableHeaders, id: str) -> None:
    headers[REQUEST_ID] = id
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-cache" if "etag" in headers else "no-store")
    is_page = headers.get("content-type", "").startswith("text/html")
    headers.setdefault("Content-Security-Policy", DOCS_POLICY if is_page else POLICY)


def _log_refusal(scope: Scope, note: Note, status: int) -> None:
    path = str(scope["path"])
    if path.removeprefix(scope.get("root_path", "")).startswith("/health/"):
        return
    level = logging.WARNING if status in _DISTRUST or note.code == "no_session" else logging.INFO
    values = {
        "request": note.id,
        "address": client_address(scope),
        "method": scope.get("method", "WEBSOCKET"),
        "path": _WATCH_KEY.sub(r"\1...", path)[:LONGEST_PATH],
        "status": status,
        "code": note.code,
    }
    if note.key is not None:
        values["key"] = note.key
    logger.log(level, "request refused", extra=values)
