"""A real server in a thread of its own, for tests."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import torch
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect

from pyrf.endpoints.moderate import Moderate
from pyrf.pipeline import StreamingPipeline
from pyrf.protocol import MESSAGE, FrameHeader, unpack_frame
from pyrf.serve.app import create_app
from pyrf.serve.server import Server, bind
from pyrf.serve.settings import ServeSettings
from pyrf.serve.state import ServerState

PROMPT, BLUE, OTHER = "a red circle moves right", "a blue square", "a red square spins"
TIMEOUT = 300
"""Seconds for what should come at once; a loaded machine may take long."""
SEND_BUFFER = 32768
"""Bytes that the system keeps for a viewer, so that one who does not read is soon noticed."""
ROOMY: dict[str, Any] = {
    "creates_per_minute": 1e5,
    "controls_per_second": 1e4,
    "max_detached_per_address": 1000,
    "requests_per_second": 1e5,
    "send_timeout_s": TIMEOUT,
}


def _loaded(pipe: StreamingPipeline) -> StreamingPipeline:
    return pipe


class Running:
    """A server and what a test asks of it.

    Attributes:
        url: its address.
        http: a client of it.
        state, registry: what it holds, and its sessions; touch it through `call` only.
    """

    _server: Server

    def __init__(
        self,
        pipe: StreamingPipeline,
        settings: ServeSettings,
        *,
        sock: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
        moderate: Moderate | None = None,
        others: Mapping[str, StreamingPipeline] | None = None,
    ) -> None:
        self.pipe, self.settings, self._tls = pipe, settings, tls
        loads = {name: partial(_loaded, other) for name, other in (others or {}).items()}
        self.app = create_app(
            lambda: pipe, model="random", others=loads, settings=settings, moderate=moderate
        )
        self._socket = bind("127.0.0.1", 0) if sock is None else sock
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._uds = self._socket.getsockname() if self._socket.family == socket.AF_UNIX else None
        self.url = (
            f"http://127.0.0.1:{self._socket.getsockname()[1]}" if not self._uds else "http://localhost"
        )
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._server = Server(self.app, tls=self._tls, started=self._ready.set)
            await self._server.serve([self._socket])

        asyncio.run(main())

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(TIMEOUT)
        self.state: ServerState = self.app.state.server
        self.registry = self.state.registry
        transport = httpx.HTTPTransport(uds=self._uds)
        self.http = httpx.Client(transport=transport, base_url=self.url, timeout=TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the server's loop."""

        async def call() -> Any:
            return function()

        return self.run(call())

    def wait_until(self, holds: Callable[[], Any]) -> None:
        """Return once `holds` is true of the server's state."""

        async def wait() -> None:
            async with asyncio.timeout(TIMEOUT):
                while not holds():
                    await asyncio.sleep(0.005)

        self.run(wait())

    @contextmanager
    def model_held(self) -> Iterator[None]:
        """Keep the model's thread busy, once the chunk under way is done."""
        release, held = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            assert release.wait(TIMEOUT)

        job = asyncio.run_coroutine_threadsafe(self.registry._scheduler.run(hold), self._loop)
        try:
            assert held.wait(TIMEOUT)
            yield
        finally:
            release.set()
            job.result(TIMEOUT)

    def create(self, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
        """Begin a session."""
        response = self.http.post("/v1/sessions", json={"prompt": prompt, **options})
        assert response.status_code == 201, response.text
        return response.json()

    def session(self, created: dict[str, Any]) -> Any:
        """The server's own session, or None."""
        return self.registry.live.get(created["id"])

    def post(self, created: dict[str, Any], path: str, **body: Any) -> httpx.Response:
        """A control of a session."""
        headers = {"Authorization": f"Bearer {created['token']}"}
        url = f"/v1/sessions/{created['id']}{path}"
        return self.http.post(url, json=body or None, headers=headers)

    def delete(self, created: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {created['token']}"}
        return self.http.delete(f"/v1/sessions/{created['id']}", headers=headers)

    def attach(self, created: dict[str, Any], format: str = "raw", **options: Any) -> ClientConnection:
        """A WebSocket of a session; the hello message is still to be read."""
        path = f"/v1/sessions/{created['id']}/ws?format={format}"
        headers = {"Authorization": f"Bearer {created['token']}"}
        url = self.url.replace("http", "ws") + path
        patient = {"open_timeout": TIMEOUT, "ping_interval": None}
        options = {"max_queue": None, "compression": None, **patient, **options}
        return connect(url, additional_headers=headers, **options)


def read(viewer: ClientConnection) -> Any:
    """The next message: a JSON one, or a frame as its header and bytes."""
    message = viewer.recv(TIMEOUT)
    return MESSAGE.validate_json(message) if isinstance(message, str) else unpack_frame(message)


def read_frames(viewer: ClientConnection, count: int) -> list[tuple[FrameHeader, bytes]]:
    """The next frames; messages between them are dropped."""
    frames: list[tuple[FrameHeader, bytes]] = []
    while len(frames) < count:
        message = read(viewer)
        if isinstance(message, tuple):
            frames.append((message[0], bytes(message[1])))
    return frames


def read_until(viewer: ClientConnection, kind: str) -> Any:
    """The next JSON message of a kind; frames and others are dropped."""
    while True:
        message = read(viewer)
        if not isinstance(message, tuple) and message.type == kind:
            return message


def close_of(raised: pytest.ExceptionInfo[ConnectionClosed]) -> Close:
    """What the server closed a connection with."""
    assert raised.value.rcvd is not None
    return raised.value.rcvd


@pytest.fixture
def own_logging() -> Iterator[None]:
    """For a test that runs `pyrf serve` in this process: what it does to logging does not last."""
    loggers = [logging.getLogger(name) for name in ("", "pyrf", "uvicorn")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def pipe(random_bundle: Path) -> Iterator[StreamingPipeline]:
    """A small pipeline on one thread, as the server's thread and the test's share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield StreamingPipeline.from_pretrained(str(random_bundle))
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def server(pipe: StreamingPipeline) -> Iterator[Running]:
    """A server that all tests share; they end what they begin."""
    with Running(pipe, ServeSettings(**ROOMY)) as running:
        yield running


@pytest.fixture
def serve(pipe: StreamingPipeline) -> Iterator[Callable[..., Running]]:
    """Starts servers with settings of their own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Running(pipe, ServeSettings(**{**ROOMY, **settings})))
