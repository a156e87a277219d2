"""Servers that misbehave, networks that break: every failure is an error of the client, in clear words."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from pyrf.client import (
    AsyncClient,
    AsyncSession,
    BadArgumentError,
    BadReplyError,
    Client,
    ClientError,
    RefusedError,
    SessionLostError,
    UnreachableError,
    asynchronous,
    http,
)
from pyrf.protocol import ErrorDetail, FrameHeader, SessionCreated, pack_frame
from tests.support.misbehaving import Misbehaving, Script, hang, reply
from tests.support.running import PROMPT, TIMEOUT

ERROR = {"error": {"code": "full", "message": "all sessions are taken", "retry_after": 0.1}}
INFO = {
    **{"version": "1", "model": "m", "backend": "b", "device": "cpu", "dtype": "float32", "fps": 16.0},
    **{"height": 32, "width": 32, "chunk_frames": 12, "sessions": 0},
    "limits": {
        **{"max_sessions": 1, "max_session_s": 1, "max_video_frames": 1, "max_prompt_chars": 1},
        **{"max_pixels": 1, "grace_s": 1},
    },
}
CREATED = {
    **{"id": "0123abcd", "state": "detached", "chunk": 0, "prompt_id": 0, "seed": 0, "fps": 16.0},
    **{"height": 2, "width": 2, "pace": "max", "grace_s": 0, "frames_made": 0, "frames_dropped": 0},
    "token": "secret-of-the-session",
}
SESSION = {name: value for name, value in CREATED.items() if name != "token"}
HELLO = json.dumps({"type": "hello", "format": "raw", "session": SESSION})
HEADER = FrameHeader.model_validate(
    {
        **{"chunk": 0, "frame": 0, "pts_s": 0.0, "chunk_frames": 1, "prompt_id": 0, "made_at": 0.0},
        **{"compute_ms": 1.0, "dropped": 0, "width": 2, "height": 2, "format": "raw"},
    }
)


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


async def ask(url: str, **options: Any) -> Any:
    async with AsyncClient(url, **{"patience": 0, **options}) as client:
        return await client.server_info()


async def create(url: str, **options: Any) -> Any:
    async with AsyncClient(url, **{"patience": 0, **options}) as client:
        return await client.create_session(PROMPT)


def drip(connection: socket.socket) -> None:
    """A reply that never ends, and that no wait for a single byte notices."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (b"garbage\r\n\r\n", BadReplyError, "does not speak HTTP as expected"),
        (b"\x00\xff" * 50_000, ClientError, "127.0.0.1"),
        (b"", UnreachableError, "no answer from http://127.0.0.1"),
        (reply({"model": "x"}), BadReplyError, "answered GET /v1/model with no ServerInfo"),
        (reply([]), BadReplyError, "with no ServerInfo"),
        (reply(b'{"version": "1", "mod'), BadReplyError, "with no ServerInfo"),
        (reply(INFO)[:-20], UnreachableError, "no answer from"),
        (reply(b"<html>hello</html>", Content_Type="text/html"), BadReplyError, "with no ServerInfo"),
        (reply(b"\xff\xfe{}"), BadReplyError, "with no ServerInfo"),
        (reply(b"", Content_Encoding="gzip"), BadReplyError, "with no ServerInfo"),
        (reply(b"no gzip", Content_Encoding="gzip"), BadReplyError, "does not speak HTTP"),
        (reply(b" " * (2**20 + 1)), BadReplyError, "exceeds 1048576 bytes"),
        (reply(b"", "302 Found", Location="http://evil.example/"), BadReplyError, "HTTP 302, to http://evil"),
        (reply(b"", "301 Moved"), BadReplyError, "HTTP 301, to nowhere"),
        (reply(b"", "204 No Content", Content_Length=""), BadReplyError, "with no ServerInfo"),
        (reply(b"<html>", "502 Bad Gateway"), RefusedError, "HTTP 502 Bad Gateway"),
        (reply(b"x" * (2**20 + 1), "500 Oops"), BadReplyError, "exceeds 1048576 bytes"),
        (reply(ERROR, "404 Not Found"), RefusedError, "all sessions are taken"),
    ],
)
def test_replies_that_are_none(script: Script, kind: type[ClientError], message: str) -> None:
    with Misbehaving(script) as server, pytest.raises(kind, match=re.escape(message)) as failed:
        run(ask(server.url))
    if kind is not RefusedError:
        assert failed.value.__cause__ is not None or "exceeds" in message or "HTTP" in message


@pytest.mark.parametrize("script", [hang, drip], ids=["silent", "dripping"])
def test_a_slow_server(script: Script) -> None:
    with (
        Misbehaving(script) as server,
        pytest.raises(UnreachableError, match=r"did not answer within 0\.3 s"),
    ):
        run(ask(server.url, timeout=0.3))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_there(host: str) -> None:
    for call in (ask, create):
        with pytest.raises(UnreachableError, match=f"no answer from http://{host}:") as failed:
            run(call(f"http://{host}:{closed_port()}"))
        assert failed.value.__cause__ is not None
    with pytest.raises(UnreachableError, match=r"no-such-host\.invalid"):
        run(ask("http://no-such-host.invalid"))
    with pytest.raises(UnreachableError, match="no answer from unix:/nowhere"):
        run(ask("unix:/nowhere.sock"))


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
    monkeypatch.setattr(asynchronous, "attach", attach)

    async def look() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            created = SessionCreated.model_validate({**CREATED, "grace_s": grace_s})
            await anext(AsyncSession(client, created, "raw"))

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


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (reply(b"<html>", Content_Type="text/html"), BadReplyError, "with text/html, not a video"),
        (reply(b"a" * 99, Content_Type="video/mp4", Content_Length="200"), UnreachableError, "no answer"),
        (reply(ERROR, "503 Full"), RefusedError, "all sessions are taken"),
        (hang, UnreachableError, "did not answer within"),
    ],
)
def test_clips(script: Script, kind: type[ClientError], message: str) -> None:
    async def fetch(url: str) -> None:
        async with (
            AsyncClient(url, patience=0, timeout=1) as client,
            aclosing(client.video(PROMPT)) as pieces,
        ):
            async for _ in pieces:
                pass

    with Misbehaving(script) as server, pytest.raises(kind, match=message):
        run(fetch(server.url))


@pytest.mark.parametrize(
    "fields",
    [{"id": "../../v1/model"}, {"id": "a\r\nX: y"}, {"id": ""}, {"token": "a\r\nX: y"}, {"token": "a b"}],
)
def test_sessions_that_pyrf_never_gives(fields: dict[str, str]) -> None:
    message = "an id or token that pyrf never gives"
    with (
        Misbehaving(reply({**CREATED, **fields}, "201 Created")) as server,
        pytest.raises(BadReplyError, match=message),
    ):
        run(create(server.url))


def ws(payload: bytes, opcode: int) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload


class Streaming(Misbehaving):
    """A server whose sessions send what a test says, once a WebSocket is open."""

    def __init__(
        self, *frames: bytes, status: str = "", after: Callable[[socket.socket], None] = hang
    ) -> None:
        self._frames, self._status, self._after = b"".join(frames), status, after
        super().__init__(reply(CREATED, "201 Created"), self._stream)

    def _stream(self, connection: socket.socket) -> None:
        if not self.heads[-1].startswith("GET"):
            connection.sendall(reply(b"", "204 No Content", Content_Length=""))
            return
        if self._status:
            connection.sendall(reply(b"", self._status, Location="http://127.0.0.1:1/"))
            return
        key = next(
            line[19:] for line in self.heads[-1].split("\r\n") if line.lower().startswith("sec-websocket-key")
        )
        accept = base64.b64encode(
            hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        )
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: pyrf.v1\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self._frames
        )
        self._after(connection)


GREETING = ws(HELLO.encode(), 1)


def watch(server: Misbehaving, **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(server.url, **{"patience": 0, "timeout": 1, **options}) as client:
            session = await client.create_session(PROMPT)
            return await anext(session)

    with server:
        return run(main())


def test_a_frame_of_our_own_server() -> None:
    frame = watch(Streaming(GREETING, ws(pack_frame(HEADER, bytes(12)), 2)))
    assert frame.pixels.shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([GREETING, ws(b"\x00", 2)], "broken frame: a frame message has at least"),
        ([GREETING, ws(b"\xff\xff\xff\xff", 2)], "broken frame"),
        ([GREETING, ws(pack_frame(HEADER, bytes(11)), 2)], "broken frame"),
        ([GREETING, ws(pack_frame(HEADER.model_copy(update={"height": -2}), bytes(12)), 2)], "broken frame"),
        (
            [GREETING, ws(pack_frame(HEADER.model_copy(update={"format": "jpeg"}), b"GIF89a"), 2)],
            "broken frame",
        ),
        ([GREETING, b"\x82\x7f" + (2**40).to_bytes(8, "big")], "what cannot be read"),
        ([GREETING, ws(b"\xff\xfe", 1)], "what cannot be read"),
        ([GREETING, b"\xff\x00"], "what cannot be read"),
        ([ws(b"hello", 1)], "first message is none of pyrf's"),
        ([ws(b"\x00\x01", 2)], "first message is none of pyrf's"),
        (
            [ws(b'{"type": "state", "state": "paused", "chunk": 1}', 1)],
            "the server began with state, not hello",
        ),
    ],
)
def test_streams_that_are_broken(frames: list[bytes], message: str) -> None:
    with pytest.raises(BadReplyError, match=message):
        watch(Streaming(*frames))


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        ("403 Forbidden", RefusedError, "HTTP 403 Forbidden"),
        ("302 Found", BadReplyError, "answered HTTP 302"),
        ("200 OK", BadReplyError, "answered HTTP 200"),
        ("503 Full", SessionLostError, "no connection to session 0123abcd: the server answered HTTP 503"),
    ],
)
def test_handshakes_that_are_refused(status: str, kind: type[ClientError], message: str) -> None:
    server = Streaming(status=status)
    with pytest.raises(kind, match=message):
        watch(server)
    assert all("secret-of-the-session" not in head.split("\r\n")[0] for head in server.heads)


def test_a_server_that_greets_and_goes() -> None:
    """It is not attached to without end."""
    server = Streaming(GREETING, after=lambda connection: None)
    with pytest.raises(SessionLostError, match="no connection to session 0123abcd: the connection was lost"):
        watch(server)
    assert len(server.heads) < 12


def test_a_server_that_never_greets() -> None:
    with pytest.raises(SessionLostError, match="no connection to session 0123abcd"):
        watch(Streaming(), timeout=0.2)


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


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_copied_and_pickled(make: Callable[[Any], Any]) -> None:
    error = make(RefusedError(503, ErrorDetail(code="full", message="all taken", retry_after=5.0)))
    assert (error.status, error.code, error.retry_after, str(error)) == (503, "full", 5.0, "all taken")
    for kind in (BadArgumentError, BadReplyError, UnreachableError, SessionLostError, ClientError):
        copied = make(kind("why"))
        assert (type(copied), str(copied)) == (kind, "why")


@pytest.mark.parametrize(
    "token", ["", "s3cret\n", " s3cret", "s3cret ", "s3\ncret", "s3cret\x00", "пароль", "s3crét"]
)
def test_a_token_that_no_header_holds_is_not_told(token: str) -> None:
    for make in (AsyncClient, Client):
        with pytest.raises(BadArgumentError, match="the token must be printable ASCII") as refused:
            make("http://127.0.0.1:8000", token)
        assert not token.strip() or token.strip() not in str(refused.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"patience": -1}]
)
def test_numbers_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(BadArgumentError, match="must be a number of seconds"):
        Client("http://127.0.0.1:8000", **options)


def test_requests_that_no_server_takes() -> None:
    async def main() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            for call in (
                client.create_session(PROMPT, seed=-1),
                client.create_session(7),  # type: ignore[arg-type]
                client.create_session(PROMPT, pace="slow"),  # type: ignore[arg-type]
                anext(client.video(PROMPT, 0)),
            ):
                with pytest.raises(BadArgumentError):
                    await call

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
