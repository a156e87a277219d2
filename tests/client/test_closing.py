"""What is cancelled, closed, shared by threads, forked or never closed leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from pyrf.client import (
    AsyncClient,
    BadArgumentError,
    Client,
    ClientError,
)
from tests.support.client_calls import INFO, run
from tests.support.misbehaving import Misbehaving, hang, reply
from tests.support.running import PROMPT, TIMEOUT
from tests.support.scripted_streams import GREETING, Streaming


@pytest.mark.parametrize("greeting", [b"", GREETING], ids=["attaching", "attached"])
def test_a_cancelled_task_closes_its_socket(greeting: bytes) -> None:
    server = Streaming(greeting)

    async def main() -> None:
        client = AsyncClient(server.url, timeout=TIMEOUT)
        session = await client.create_session(PROMPT)
        assert await asyncio.to_thread(server.gone.acquire, timeout=TIMEOUT)
        task = asyncio.create_task(anext(session))
        while len(server.heads) < 2 or (greeting and session._socket is None):
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.aclose()
        assert await asyncio.to_thread(server.gone.acquire, timeout=TIMEOUT)

    with server:
        run(main())


def test_a_cancelled_request_closes_its_socket() -> None:
    async def main() -> None:
        async with AsyncClient(server.url, timeout=TIMEOUT) as client:
            task = asyncio.create_task(client.create_session(PROMPT))
            while not server.heads:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.gone.acquire, timeout=TIMEOUT)

    with Misbehaving(hang) as server:
        run(main())


def test_a_stream_ends_with_its_client() -> None:
    async def main() -> None:
        client = AsyncClient(server.url, timeout=TIMEOUT)
        session = await client.create_session(PROMPT)
        task = asyncio.create_task(anext(session))
        while session._socket is None:
            await asyncio.sleep(0.005)
        await client.aclose()
        with pytest.raises(ClientError, match="the client is closed"):
            await task
        assert len(server.heads) == 2

    server = Streaming(GREETING)
    with server:
        run(main())


def test_one_iteration_at_a_time() -> None:
    async def main() -> None:
        async with AsyncClient(server.url, timeout=TIMEOUT) as client:
            session = await client.create_session(PROMPT)
            task = asyncio.create_task(anext(session))
            await asyncio.sleep(0)
            with pytest.raises(ClientError, match="one iteration at a time"):
                await anext(session)
            task.cancel()

    server = Streaming(GREETING)
    with server:
        run(main())


def test_a_closed_client() -> None:
    client = Client("http://127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(ClientError, match="the client is closed"):
        client.server_info()

    async def main() -> None:
        other = AsyncClient("http://127.0.0.1:1")
        await other.aclose()
        with pytest.raises(ClientError, match="the client is closed"):
            await other.server_info()

    run(main())


def test_a_client_that_fails_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(BadArgumentError):
        Client("127.0.0.1:8000")
    assert threading.active_count() == before


def test_a_program_ends_without_closing_its_client() -> None:
    code = "from pyrf.client import Client; client = Client('http://127.0.0.1:1'); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_threads_share_a_client() -> None:
    with Misbehaving(reply(INFO)) as server, Client(server.url) as client:
        models: list[str] = []
        threads = [
            threading.Thread(target=lambda: models.append(client.server_info().model)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert models == 8 * ["m"]


def test_a_client_that_is_closed_during_a_call() -> None:
    with Misbehaving(hang) as server:
        client = Client(server.url, timeout=TIMEOUT)
        failed: list[Exception] = []

        def ask() -> None:
            try:
                client.server_info()
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.heads:
            time.sleep(0.005)
        client.close()
        thread.join(TIMEOUT)
        assert isinstance(failed[0], ClientError)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_client_does_not_survive_a_fork() -> None:
    code = """
import os
from pyrf.client import Client, ClientError
client = Client("http://127.0.0.1:1")
if os.fork() == 0:
    try:
        client.server_info()
    except ClientError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT)
    assert "forked" in done.stdout
