"""Runs the app under uvicorn: a port that is known to be free, and an orderly end on SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from pyrf.serve.settings import ServeSettings
from pyrf.serve.state import state_of

CLOSING_S = 5
"""Seconds that connections have to end after their viewers were told."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        ValueError: when the address cannot be had.
    """
    if not 0 <= port < 2**16:  # the system would take it modulo 65536
        raise ValueError(f"a port lies in 0..65535, got {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ValueError(f"cannot listen on {host} port {port}: {reason}; choose another") from None


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return str(sock.getsockname()[0]) in ("127.0.0.1", "::1")


class Server(uvicorn.Server):
    """A server that tells its viewers before it goes, and then exits as if all was well.

    Args:
        app: from `create_app`.
        settings: the app's.
        tls: from `tls_context`, for HTTPS.
        started: called once the app is loaded and connections are taken.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: ServeSettings,
        *,
        log_config: dict[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                access_log=False,
                proxy_headers=False,  # it would believe whoever speaks from this machine; see address.py
                log_config=log_config,
                server_header=False,
                ws_max_size=settings.max_body_bytes,
                ws_max_queue=8,
                ws_per_message_deflate=False,  # JPEG does not shrink, and raw frames cost more than they save
                timeout_graceful_shutdown=CLOSING_S,
            )
        )
        self._app, self._tls, self._started = app, tls, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.ssl = self._tls
        await super().startup(sockets)
        if self.started:
            self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if state := state_of(self._app):
            await state.registry.drain()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C drain; unlike uvicorn's own this does not raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(app: FastAPI, settings: ServeSettings, sock: socket.socket, **options: Any) -> None:
    """Serve until told to stop.

    Raises:
        ValueError: when the model cannot be loaded.
    """
    asyncio.run(Server(app, settings, **options).serve([sock]))
