"""Runs the app under uvicorn: a port that answers at once, bounds on connections, and an end in time."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from pyrf.serve.address import Proxies
from pyrf.serve.connections import Connection, Connections, connection_limit
from pyrf.serve.ends import end_at_once, end_within, reason
from pyrf.serve.listener import Listener
from pyrf.serve.loading import LoadingApp, Make
from pyrf.serve.metrics import Metrics
from pyrf.serve.settings import ServeSettings
from pyrf.serve.state import state_of
from pyrf.serve.wire import Http
from pyrf.stops import heard

logger = logging.getLogger(__name__)

DRAIN_SHARE = 0.7
"""Of the time that is left, what the next step of the end may take."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        ValueError: when the address cannot be had.
    """
    if not 0 <= port < 2**16:  # the system would take it modulo 65536
        raise ValueError(f"a port lies in 0..65535, got {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Of all addresses of IPv6 those of IPv4 are part, as everywhere else; Linux decides by a setting.
        is_dual = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=512, dualstack_ipv6=is_dual)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ValueError(f"cannot listen on {host} port {port}: {reason}; choose another") from None


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return str(sock.getsockname()[0]) in ("127.0.0.1", "::1")


class Server(uvicorn.Server):
    """A server that bounds what clients can make it spend, and tells its viewers before it goes.

    Args:
        app: from `create_app`, or one that is still loading.
        tls: from `tls_context`, for HTTPS.
        started: called once connections are taken.
    """

    def __init__(
        self,
        app: FastAPI | LoadingApp,
        *,
        log_config: dict[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        settings: ServeSettings = app.state.settings
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                http=Http,  # one parser everywhere, whatever else is installed
                ws="websockets-sansio",
                h11_max_incomplete_event_size=settings.max_header_bytes,
                timeout_keep_alive=math.ceil(settings.idle_timeout_s),
                access_log=False,
                proxy_headers=False,  # it would believe whoever speaks from this machine; see address.py
                log_config=log_config,
                server_header=False,
                ws_max_size=max(settings.max_body_bytes, settings.max_source_bytes),
                ws_per_message_deflate=False,  # JPEG does not shrink, and raw frames cost more than they save
            )
        )
        self._app, self._settings, self._tls, self._started = app, settings, tls, started
        self._proxies = Proxies(settings.trusted_proxies)
        self._until: float | None = None
        self._watchdog: threading.Timer | None = None
        self.failure: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen: uvicorn's own way would let in as many as come, and count none before its TLS handshake."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise RuntimeError("the app could not be started; the log says why")
        assert sockets is not None
        limit = connection_limit(self._settings)
        self._connections = Connections(self._settings, self._app.state.metrics, limit)
        self._sweep = asyncio.create_task(self._connections.sweep())
        listeners = [
            Listener(
                sock,
                self._connections,
                self._make_protocol,
                tls=self._tls,
                handshake_s=self._settings.header_timeout_s,
                is_counted=lambda address: not self._proxies.trusts(address),
            )
            for sock in sockets
        ]
        self.servers = cast("list[asyncio.Server]", listeners)
        self.started = True
        logger.info("listening", extra={"on": [sock.getsockname() for sock in sockets]})
        self._started()

    def _make_protocol(self, connection: Connection) -> Http:
        return Http(
            connection,
            self._connections,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    def fail(self, error: Exception) -> None:
        """End, as the app cannot be had."""
        self.failure = error
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell viewers, and close everything: all of it within `drain_s`."""
        self._until = self._until or time.monotonic() + self._settings.drain_s
        if state := state_of(self._app):
            await state.registry.drain(max(0.0, self._until - time.monotonic()) * DRAIN_SHARE)
        self._connections.close_waiting()
        # uvicorn's own patience first, so that what it cancels can still clean up.
        self.config.timeout_graceful_shutdown = self._left() * DRAIN_SHARE  # type: ignore[assignment]
        try:
            async with asyncio.timeout(self._left()):
                await super().shutdown(sockets)
        except TimeoutError:
            logger.warning("not everything ended in time", extra={"seconds": self._settings.drain_s})
        self._sweep.cancel()

    def _left(self) -> float:
        assert self._until is not None
        return max(0.1, self._until - time.monotonic())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals to end drain; unlike uvicorn's own this does not raise them again afterwards.

        What the parent ignores stays ignored, as SIGHUP under nohup.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in heard()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, and the deadline; the second one is the end."""
        if self._until is not None:
            end_at_once(sig)
            return
        self._until = time.monotonic() + self._settings.drain_s
        self.should_exit = True
        self._watchdog = end_within(self._settings.drain_s)

    def disarm(self) -> None:
        """Let the process end by itself, if nothing holds it."""
        if self._watchdog is not None and not any_thread_holds():
            self._watchdog.cancel()


def any_thread_holds() -> bool:
    """Whether the process would wait for a thread."""
    return any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())


def run(
    make: Make,
    settings: ServeSettings,
    sock: socket.socket,
    *,
    metrics: Metrics,
    log_config: dict[str, Any] | None = None,
    tls: ssl.SSLContext | None = None,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until told to stop. Health is answered from the first moment, the rest once the app is made.

    Args:
        make: makes the app, in a thread.
        sock: that listens.
        metrics: the app's.
        tls: from `tls_context`, for HTTPS.
        started: called once the app is there.

    Raises:
        ValueError: the app cannot be made, and why.
    """

    async def main() -> None:
        app = LoadingApp(
            make, settings, metrics, on_loaded=started, on_failed=lambda error: server.fail(error)
        )
        server = Server(app, log_config=log_config, tls=tls)
        await server.serve([sock])
        server.disarm()
        if server.failure is not None:
            raise ValueError(reason(server.failure)) from server.failure
        atexit.register(app.leave)

    asyncio.run(main())
