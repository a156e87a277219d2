"""What a client does again, and for how long."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from pyrf.client import (
    AsyncClient,
    AsyncSession,
    RefusedError,
    SessionLostError,
    UnreachableError,
    http,
)
from pyrf.protocol import SessionCreated
from tests.support.client_calls import CREATED, ERROR, INFO, ask, closed_port, create, run
from tests.support.misbehaving import Misbehaving, reply
from tests.support.running import PROMPT, TIMEOUT


def test_a_full_server_is_asked_again() -> None:
    full = reply(ERROR, "503 Service Unavailable", Retry_After="1")
    with Misbehaving(full, full, reply(CREATED, "201 Created")) as server:
        session = run(create(server.url, patience=TIMEOUT))
        assert session.created.id == CREATED["id"]
        assert len(server.heads) == 3


@pytest.mark.parametrize(
    ("grace_s", "waited_s"), [(0, 0.2 + 0.4), (5, 0.2 + 0.4 + 0.8 + 1.6 + 2.0), (30, 29.0)]
)
def test_a_session_is_looked_for_as_long_as_the_server_keeps_it(
    monkeypatch: pytest.MonkeyPatch, grace_s: float, waited_s: float
) -> None:
    """For a second at least. Its pauses double up to two seconds, and nothing but pauses takes time here."""
    clock, pauses = SimpleNamespace(now=1000.0), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds

    async def attach(*_: object) -> None:
        raise UnreachableError("the server does not answer") from ConnectionRefusedError()

    loop = SimpleNamespace(time=lambda: clock.now)
    monkeypatch.setattr(http, "asyncio", SimpleNamespace(get_running_loop=lambda: loop, sleep=sleep))
    monkeypatch.setattr("pyrf.client.session.attach", attach)

    async def look() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            created = SessionCreated.model_validate({**CREATED, "grace_s": grace_s})
            await anext(AsyncSession(client.url, client._calls, created, "raw"))

    with pytest.raises(
        SessionLostError, match="no connection to session 0123abcd: the server does not answer"
    ):
        run(look())
    assert sum(pauses) == pytest.approx(waited_s)


def test_only_as_long_as_there_is_patience() -> None:
    late = reply({"error": {**ERROR["error"], "retry_after": 3600}}, "503 Service Unavailable")
    plain = reply(b"down", "503 Service Unavailable", Retry_After="3600")
    for script in (late, plain):
        with Misbehaving(script) as server, pytest.raises(RefusedError) as refused:
            run(create(server.url, patience=5))
        assert (refused.value.status, refused.value.retry_after) == (503, 3600)
        assert len(server.heads) == 1


def test_a_server_that_starts_late() -> None:
    port = closed_port()
    tried = threading.Event()

    async def main() -> Any:
        async with AsyncClient(f"http://127.0.0.1:{port}", patience=TIMEOUT) as client:
            task = asyncio.create_task(client.create_session(PROMPT))
            await asyncio.sleep(0.05)
            tried.set()
            return await task

    def start() -> None:
        assert tried.wait(TIMEOUT)
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply(CREATED, "201 Created"))

    thread = threading.Thread(target=start)
    thread.start()
    assert run(main()).created.id == CREATED["id"]
    thread.join(TIMEOUT)


def test_what_may_have_been_done_is_not_done_again() -> None:
    """The connection breaks after the request was sent: a session may exist."""
    with Misbehaving(b"") as server:
        with pytest.raises(UnreachableError):
            run(create(server.url, patience=5))
        assert len(server.heads) == 1

        async def prompt() -> None:
            async with (
                AsyncClient(server.url, patience=5) as client,
                aclosing(client.video(PROMPT)) as pieces,
            ):
                await anext(pieces)

        with pytest.raises(UnreachableError):
            run(prompt())
        assert len(server.heads) == 2


def test_what_changes_nothing_is_done_again() -> None:
    with Misbehaving(b"", b"", reply(INFO)) as server:
        assert run(ask(server.url, patience=TIMEOUT)).model == "m"
        assert len(server.heads) == 3
