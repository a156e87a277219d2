"""Who may talk to the server: bearer tokens, the Host and Origin of a request, and how large it may be."""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyrf.serve.errors import ServeError, error_response
from pyrf.serve.metrics import Metrics
from pyrf.serve.settings import ServeSettings
from pyrf.serve.state import TheServer

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}

_bearer = HTTPBearer(auto_error=False)


def bearer_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str | None:
    """What the Authorization header holds, if anything."""
    return None if credentials is None else credentials.credentials


Bearer = Annotated[str | None, Depends(bearer_token)]


def require_token(server: TheServer, token: Bearer) -> None:
    """Let in who holds the server's token, or anyone when it has none.

    Raises:
        ServeError: 401.
    """
    expected = server.settings.token
    if expected is None:
        return
    if token is None or not secrets.compare_digest(token.encode(), expected.encode()):
        raise ServeError(401, "unauthorized", "this server needs its token: Authorization: Bearer TOKEN")


class Guard:
    """Refuses foreign web pages and oversized bodies before anything reads them.

    A browser tells which page a request comes from (Origin); only pages of this server and of the allowed
    origins may use it. On loopback the Host must be a name of this machine, so that no foreign name that was
    made to point here passes for the server's own.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._problem(Headers(scope=scope))
        if problem is None:
            await self._app(scope, self._bounded(receive) if scope["type"] == "http" else receive, send)
            return
        self._metrics.count_refusal(problem.reply.code)
        if scope["type"] == "http":
            await error_response(problem)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": problem.reply.message})

    def _problem(self, headers: Headers) -> ServeError | None:
        host = headers.get("host", "")
        if self._settings.loopback and _parts(f"//{host}").hostname not in _LOOPBACK_NAMES:
            return ServeError(403, "forbidden_host", "this server answers to localhost only")
        origin = headers.get("origin")
        if origin is not None and origin not in self._settings.origins and _parts(origin).netloc != host:
            return ServeError(403, "forbidden_origin", "pages of this origin may not use this server")
        limit, length = self._settings.max_body_bytes, headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            return _too_large(limit)
        return None

    def _bounded(self, receive: Receive) -> Receive:
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._settings.max_body_bytes:
                raise _too_large(self._settings.max_body_bytes)
            return message

        return bounded


def _parts(url: str) -> SplitResult:
    """A URL in parts; a broken one has none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _too_large(limit: int) -> ServeError:
    return ServeError(413, "too_large", f"a body may have {limit} bytes; send less")
