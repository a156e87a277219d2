"""Who may talk to the server: bearer tokens, the Host and Origin of a request, and how large it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyrf.serve.address import ASKED_HOST, client_address
from pyrf.serve.envelope import note_key, note_refusal
from pyrf.serve.errors import ServeError, error_response
from pyrf.serve.hosts import AllowedHosts, Host, Origin, Reach, is_own_origin
from pyrf.serve.keys.key import Key, Right
from pyrf.serve.metrics import Metrics
from pyrf.serve.settings import ServeSettings
from pyrf.serve.state import ServerState, TheServer

if TYPE_CHECKING:
    from pyrf.serve.sessions.session import Session

_bearer = HTTPBearer(auto_error=False)


def bearer_token(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str | None:
    """What the Authorization header holds, if anything."""
    return None if credentials is None else credentials.credentials


Bearer = Annotated[str | None, Depends(bearer_token)]


def require_key(server: TheServer, request: Request, token: Bearer) -> Key | None:
    """Let in who holds a key that begins sessions, or anyone when there is none; which one it was.

    Raises:
        ServeError: 401, or 429 after many wrong keys.
    """
    return _require(server, request, token, "sessions")


def require_metrics_key(server: TheServer, request: Request, token: Bearer) -> None:
    """Let in who holds a key for metrics, or anyone when there is none.

    Raises:
        ServeError: 401, or 429 after many wrong keys.
    """
    _require(server, request, token, "metrics")


def require_admin(server: TheServer, request: Request, token: Bearer) -> Key | None:
    """Let in who holds a key of an admin.

    Raises:
        ServeError: 401, or 429 after many wrong keys.
    """
    return _require(server, request, token, "admin")


TheKey = Annotated[Key | None, Depends(require_key)]


def _require(server: ServerState, request: Request, token: str | None, right: Right) -> Key | None:
    if not server.keyring.guards(right):
        return None
    address = client_address(request.scope)
    if token is None:
        raise ServeError(401, "unauthorized", "this server needs its token: Authorization: Bearer TOKEN")
    server.guesses.check(address)
    found = server.keyring.find(token)
    if not found:
        server.guesses.count(address)
        raise ServeError(401, "unauthorized", "this server does not know the token; ask whoever runs it")
    note_key(request.scope, found[0].name)
    for key in found:
        if right in key.may:
            return key
    message = f"the key {found[0].name} may not do this; take one whose rights include {right!r}"
    raise ServeError(401, "unauthorized", message)


def find_session(server: ServerState, scope: Scope, id: str, token: str | None) -> Session:
    """The live session of this id, for who holds its token. That one gets in whatever others tried.

    Raises:
        ServeError: 404, whether it is the session or the token that is wrong; 429 after many wrong tokens.
    """
    try:
        return server.registry.live.find(id, token)
    except ServeError:
        if token and server.registry.live.get(id):
            address = client_address(scope)
            server.guesses.check(address)
            server.guesses.count(address)
        raise


def find_watched(server: ServerState, scope: Scope, id: str, key: str) -> Session:
    """The live session of this id, for who holds the key to watch it.

    Raises:
        ServeError: 404, whether it is the session or the key that is wrong; 429 after many wrong keys.
    """
    try:
        return server.registry.live.find_watched(id, key)
    except ServeError:
        if server.registry.live.get(id):
            address = client_address(scope)
            server.guesses.check(address)
            server.guesses.count(address)
        raise


_LONGEST_SHOWN = 300
OPENINGS = frozenset({"/v1/sessions", "/v1/videos"})
"""Paths whose bodies may hold an image."""


class Guard:
    """Refuses foreign web pages and oversized bodies before anything reads them.

    A browser tells which page a request comes from (Origin); only pages of this server and of the allowed
    origins may use it. The Host must be a name of this server, so that no foreign name that was made to point
    here passes for the server's own.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        reach: Reach = "loopback" if settings.loopback else "open" if settings.is_open else "named"
        self._hosts = AllowedHosts(settings.allowed_hosts, reach)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._problem(scope)
        if problem is None:
            is_http = scope["type"] == "http"
            await self._app(scope, _bounded(receive, self._limit(scope)) if is_http else receive, send)
            return
        self._metrics.count_refusal(problem.reply.code)
        note_refusal(scope, problem.reply.code)
        if scope["type"] == "http":
            await error_response(problem)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": problem.reply.message})

    def _problem(self, scope: Scope) -> ServeError | None:
        headers = Headers(scope=scope)
        given = headers.getlist("host") or [""]
        asked = [scope[ASKED_HOST]] if ASKED_HOST in scope else []
        return (
            self._wrong_host([*given, *asked])
            or self._foreign_origin(headers.get("origin"), scope.get("scheme", "http"), (asked or given)[0])
            or _too_long(headers.get("content-length", "0"), self._limit(scope))
        )

    def _wrong_host(self, given: list[str]) -> ServeError | None:
        for text in given:
            host = Host.parse(text)
            if self._hosts.answer_to(host):
                continue
            if host is None:
                return ServeError(
                    403, "forbidden_host", "the Host header names no host; ask by the server's name"
                )
            return ServeError(
                403,
                "forbidden_host",
                f"this server does not answer to the name {host.name}; whoever runs it may add "
                f"--allowed-host {host.name}",
            )
        return None

    def _foreign_origin(self, given: str | None, scheme: str, asked: str) -> ServeError | None:
        """A page of another site may not ask; what is no page names no origin."""
        if given is None or "*" in self._settings.origins:
            return None
        origin, host = Origin.parse(given), Host.parse(asked)
        if origin is not None and str(origin) in self._settings.origins:
            return None
        if origin is not None and host is not None and is_own_origin(origin, scheme, host):
            return None
        message = "pages of this origin may not use this server"
        if origin is not None and len(given) < _LONGEST_SHOWN:
            message += f"; whoever runs it may add --origin {origin}, or let its proxy keep the Host header"
        return ServeError(403, "forbidden_origin", message)

    def _limit(self, scope: Scope) -> int:
        """Bytes that a body may have."""
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        opens = path in OPENINGS and scope.get("method") == "POST"
        return self._settings.max_opening_bytes if opens else self._settings.max_body_bytes


def _too_long(length: str, limit: int) -> ServeError | None:
    return _too_large(limit) if length.isdecimal() and int(length) > limit else None


def _bounded(receive: Receive, limit: int) -> Receive:
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return bounded


def _too_large(limit: int) -> ServeError:
    return ServeError(413, "too_large", f"a body may have {limit} bytes; send less")
