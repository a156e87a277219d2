"""The server below a path of a larger site, as `--root-path /live` says."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Prefixed:
    """Serves an app below a path, behind proxies that keep the path and behind those that strip it.

    Redirects name a path and no host: the host that the server sees may not be what the browser asked for.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def send_local(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                if location := headers.get("location"):
                    headers["location"] = urlsplit(location)._replace(scheme="", netloc="").geturl()
                    message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(self._below(scope), receive, send_local)

    def _below(self, scope: Scope) -> Scope:
        above: str = scope.get("root_path", "")  # of an app that this one is mounted in
        path = scope["path"].removeprefix(above)
        if not self._root or path == self._root or path.startswith(f"{self._root}/"):
            return {**scope, "root_path": above + self._root}
        raw: bytes = scope.get("raw_path") or path.encode()
        return {
            **scope,
            "root_path": above + self._root,
            "path": above + self._root + path,
            "raw_path": (above + self._root).encode() + raw.removeprefix(above.encode()),
        }
