"""Connections: how long each may take, how many there may be, and who still gets through."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from pyrf.serve import connections
from pyrf.serve.connections import RESERVE, Connection, Connections, connection_limit
from pyrf.serve.listener import Listener
from pyrf.serve.metrics import Metrics
from pyrf.serve.settings import ServeSettings
from pyrf.serve.tls import tls_context
from tests.support.abuse import HEADER, OTHER_ADDRESS, ask, dial, half_open, is_cut, rest
from tests.support.certificates import write_certificate
from tests.support.running import (
    PROMPT,
    SEND_BUFFER,
    TIMEOUT,
    Running,
    close_of,
    read,
    read_frames,
    read_until,
)

Serve = Callable[..., Running]


def cut(server: Running, reason: str) -> float:
    """Connections that the server has cut off for this reason."""
    value: float = server.call(lambda: server.state.metrics.cut.labels(reason)._value.get())
    return value


def refusal(reply: bytes) -> tuple[int, str]:
    """Status and code of a raw reply."""
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def dribble(sock: socket.socket, text: bytes, ended: threading.Event) -> None:
    """Send a byte again and again, so that there is always something new."""
    while not ended.wait(0.05):
        try:
            sock.sendall(text)
        except OSError:
            return


BODY = (
    b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n{"
)
CHUNKED = BODY.replace(b"Content-Length: 60000", b"Transfer-Encoding: chunked").replace(b"{", b"1\r\n{\r\n")


@pytest.mark.parametrize(
    ("sent", "drip", "reason"),
    [
        (b"G", b"E", "header"),
        (HEADER, b"x", "header"),
        (HEADER, b"x: y\r\n", "header"),
        (BODY, b" ", "body"),
        (CHUNKED, b"1\r\n \r\n", "body"),
    ],
)
def test_a_request_that_dribbles_in_has_a_deadline(
    serve: Serve, sent: bytes, drip: bytes, reason: str
) -> None:
    server = serve(header_timeout_s=0.4, body_timeout_s=0.4)
    ended = threading.Event()
    with dial(server.url) as sock:
        sock.sendall(sent)
        dribbling = threading.Thread(target=dribble, args=(sock, drip, ended))
        dribbling.start()
        try:
            assert refusal(rest(sock)) == (408, "timeout")
        finally:
            ended.set()
            dribbling.join()
    assert cut(server, reason) == 1
    assert server.http.get("/v1/model").json()["sessions"] == 0


def test_a_body_that_nobody_waits_for_has_a_deadline(serve: Serve) -> None:
    """It was refused by its length, and still comes."""
    server = serve(body_timeout_s=0.4)
    ended = threading.Event()
    with dial(server.url) as sock:
        sock.sendall(BODY.replace(b"60000", b"6000000"))
        dribbling = threading.Thread(target=dribble, args=(sock, b" ", ended))
        dribbling.start()
        try:
            assert rest(sock).startswith(b"HTTP/1.1 413")
        finally:
            ended.set()
            dribbling.join()
    assert cut(server, "body") == 1


def test_a_connection_that_says_nothing_is_closed_without_a_word(serve: Serve) -> None:
    server = serve(header_timeout_s=0.3)
    with dial(server.url) as sock:
        assert rest(sock) == b""


def test_a_connection_that_asks_nothing_more_is_closed(serve: Serve) -> None:
    server = serve(idle_timeout_s=0.4)
    with dial(server.url) as sock:
        for _ in range(3):
            assert ask(sock).startswith(b"HTTP/1.1 200")
        assert rest(sock) == b""


@pytest.mark.parametrize("size", [21_000, 70_000, 2**20])
def test_headers_have_a_limit_however_they_come(server: Running, size: int) -> None:
    with dial(server.url) as sock:
        try:
            sock.sendall(HEADER + b"x: " + b"y" * size + b"\r\n\r\n")
        except ConnectionError:
            return  # it was cut off while it was still sending
        reply = rest(sock)
    assert not reply or refusal(reply) == (431, "too_large")


def test_the_limit_of_a_header_is_not_reached_by_browsers(server: Running) -> None:
    reply = server.http.get("/v1/model", headers={"Cookie": "x" * 12_000})
    assert reply.status_code == 200


def test_what_is_no_http_is_refused_in_the_one_shape(server: Running) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n"):
        with dial(server.url) as sock:
            sock.sendall(nonsense)
            assert refusal(rest(sock)) == (400, "bad_request")


def test_requests_beyond_the_rate_of_an_address_wait(serve: Serve) -> None:
    server = serve(requests_per_second=20)
    start = time.monotonic()
    with dial(server.url, OTHER_ADDRESS) as sock:
        sock.sendall((HEADER + b"\r\n") * 60)  # all at once: 40 pass, and every second one waits for 50 ms
        replies = b""
        while replies.count(b"HTTP/1.1 200") < 60:
            replies += sock.recv(65536)
    assert time.monotonic() - start >= 0.4  # it cannot be sooner, however fast the machine is
    start = time.monotonic()
    for _ in range(5):  # nor by a new connection each
        with dial(server.url, OTHER_ADDRESS) as sock:
            assert ask(sock).startswith(b"HTTP/1.1 200")
    assert time.monotonic() - start >= 0.05
    assert ask(dial(server.url)).startswith(b"HTTP/1.1 200")  # another address has its own rate


def test_a_reply_that_nobody_reads_is_cut_off(serve: Serve) -> None:
    server = serve(send_timeout_s=0.5)
    with dial(server.url, receive_buffer=SEND_BUFFER) as sock:
        request = HEADER.replace(b"/v1/model", b"/openapi.json") + b"\r\n"
        sock.sendall(request * 200)
        server.wait_until(lambda: server.state.metrics.cut.labels("send")._value.get() == 1)


def test_a_viewer_that_reads_nothing_is_dropped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(send_timeout_s=0.5, grace_s=600)
    created = server.create(pace="max")
    sock = dial(server.url, receive_buffer=SEND_BUFFER)
    with server.attach(created, sock=sock, max_queue=1, close_timeout=0.1):
        session = server.session(created)
        server.wait_until(lambda: session.state == "running")
        server.wait_until(lambda: session.state == "detached")  # it may come back
    with server.attach(created) as viewer:
        assert read_frames(viewer, 1)
    server.delete(created)
    assert cut(server, "send") == 1


def test_a_viewer_that_reads_slowly_is_not_dropped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six times the limit pass, on a clock that goes on as it reads, so that no busy machine counts."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: clock.now))
    server = serve(send_timeout_s=0.5)
    created = server.create(pace="max")
    sock = dial(server.url, receive_buffer=SEND_BUFFER)
    with server.attach(created, sock=sock, max_queue=1) as viewer:
        for _ in range(30):
            read_frames(viewer, 12)
            clock.now += 0.1
    server.delete(created)
    assert cut(server, "send") == 0


def test_who_reads_a_little_and_then_no_more_has_stalled() -> None:
    """What was taken long ago does not count: each span of the limit is looked at by itself."""
    connection, left = Connection("203.0.113.1", is_reserved=False), 100_000
    connection.unsent = lambda: left
    connection.stall()
    now = connection._stalled[0]  # type: ignore[index]
    assert not connection.has_stalled(now + 19, 20.0)
    left -= 40_000
    assert not connection.has_stalled(now + 20, 20.0)
    left -= 20_400  # not quite 1,024 bytes per second
    assert not connection.has_stalled(now + 39, 20.0)
    assert connection.has_stalled(now + 40, 20.0)
    left -= 20_600
    assert not connection.has_stalled(now + 60, 20.0)
    assert connection.has_stalled(now + 80, 20.0)
    connection.flow()
    assert not connection.has_stalled(now + 1000, 20.0)


def test_a_clip_that_nobody_reads_ends(serve: Serve) -> None:
    server = serve(send_timeout_s=0.5)
    body = json.dumps({"prompt": PROMPT, "num_frames": 960}).encode()
    request = BODY.replace(b"sessions", b"videos").replace(b"60000", str(len(body)).encode())[:-1] + body
    with dial(server.url, receive_buffer=4096) as sock:
        sock.sendall(request)
        server.wait_until(lambda: server.registry.info().sessions == 1)
        server.wait_until(lambda: server.registry.info().sessions == 0)
    assert cut(server, "send") == 1


def test_newcomers_of_an_address_take_the_place_of_those_that_wait(serve: Serve) -> None:
    server = serve(max_connections_per_address=8)
    server.http.close()  # it holds a connection
    with half_open(server.url, 7, OTHER_ADDRESS) as before, half_open(server.url, 5, OTHER_ADDRESS) as after:
        for sock in before[:4]:
            assert rest(sock) == b""
        assert not any(map(is_cut, [*before[4:], *after]))
        assert httpx.get(f"{server.url}/v1/model", timeout=TIMEOUT).status_code == 200
        transport = httpx.HTTPTransport(local_address=OTHER_ADDRESS)
        with httpx.Client(transport=transport, timeout=TIMEOUT) as client:  # of the same address as well
            assert client.get(f"{server.url}/v1/model").status_code == 200
    assert cut(server, "evicted") == 5


def test_beyond_all_connections_the_greediest_address_gives_way(serve: Serve) -> None:
    server = serve(max_connections=8, max_connections_per_address=6)
    server.http.close()
    with (
        half_open(server.url, 2, "127.0.0.3") as modest,
        half_open(server.url, 6, OTHER_ADDRESS) as greedy,
        half_open(server.url, 1, "127.0.0.4") as newcomer,
    ):
        assert rest(greedy[0]) == b""
        assert not any(map(is_cut, [*modest, *greedy[1:], *newcomer]))


def test_when_all_connections_are_at_work_health_still_answers(serve: Serve) -> None:
    server = serve(max_connections=4, max_connections_per_address=3)
    with ExitStack() as stack:
        for _ in range(3):
            viewer = stack.enter_context(server.attach(server.create()))
            read_frames(viewer, 1)
            server.http.close()
            server.http = stack.enter_context(httpx.Client(base_url=server.url, timeout=TIMEOUT))
        for _ in range(3 * RESERVE):
            assert httpx.get(f"{server.url}/health/live", timeout=TIMEOUT).status_code == 200
        reply = httpx.get(f"{server.url}/v1/model", timeout=TIMEOUT)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "busy")
        assert int(reply.headers["retry-after"]) > 0
        with half_open(server.url, 3 * RESERVE):
            assert httpx.get(f"{server.url}/health/ready", timeout=TIMEOUT).status_code == 200
        assert server.call(lambda: len(server._server._connections)) <= 4 + RESERVE
        read_frames(viewer, 12)


def test_sockets_that_were_refused_and_do_not_leave_give_way(serve: Serve) -> None:
    server = serve(max_connections_per_address=4)
    key = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    sent = HEADER.replace(b"/v1/model", b"/v1/sessions/x/ws") + key
    with half_open(server.url, 4, OTHER_ADDRESS, sent) as socks:
        for sock in socks:
            assert sock.recv(64).startswith(b"HTTP/1.1 101")  # refused by its close code
        # Those that a slow machine has cut off by now are no longer there to ask.
        table = server._server._connections._by_address
        server.wait_until(lambda: all(c.phase == "closing" for c in table.get(OTHER_ADDRESS, {})))
        transport = httpx.HTTPTransport(local_address=OTHER_ADDRESS)
        with httpx.Client(transport=transport, timeout=TIMEOUT) as client:
            assert client.get(f"{server.url}/v1/model").status_code == 200


def test_a_table_of_connections_keeps_nothing_of_those_that_are_gone() -> None:
    connections = Connections(ServeSettings(), Metrics(), 512)
    for i in range(3000):
        connection = connections.make(f"10.0.{i // 256}.{i % 256}")
        assert connection is not None
        connections.remove(connection)
        connections.remove(connection)
    assert len(connections) == 0
    assert not connections._by_address


def test_one_address_never_gets_all_connections() -> None:
    connections = Connections(ServeSettings(max_connections_per_address=128), Metrics(), 100)
    for _ in range(200):
        connections.make("10.0.0.1")
    own = connections._by_address["10.0.0.1"]
    assert len(own) == 75


def test_a_limit_of_open_files_below_what_sessions_need_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(ValueError, match=r"lets this process open 64 files.*raise the limit"):
        connection_limit(ServeSettings())
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connection_limit(ServeSettings()) == ServeSettings().max_connections


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A WebSocket frame as clients send it."""
    return struct.pack("!BB", 0x80 * fin | opcode, 0x80 | len(payload)) + bytes(4) + payload


@pytest.mark.parametrize(
    "flood",
    [frame(9, b"x"), frame(10, b"x"), frame(1, b"", fin=False) + frame(0, b"", fin=False) * 600],
    ids=["pings", "pongs", "fragments"],
)
def test_a_flood_of_frames_that_are_no_messages_ends_the_connection(server: Running, flood: bytes) -> None:
    created = server.create()
    with server.attach(created, close_timeout=0.1) as viewer:
        with suppress(OSError):
            for _ in range(100):
                viewer.socket.sendall(flood * 100)
        with pytest.raises(ConnectionClosed):
            read_until(viewer, "closing")
    session = server.session(created)
    server.wait_until(lambda: session.state == "detached")
    server.delete(created)


def test_pings_now_and_then_are_answered(server: Running) -> None:
    created = server.create()
    with server.attach(created) as viewer:
        for _ in range(50):
            assert viewer.ping().wait(TIMEOUT)
    server.delete(created)


def test_a_message_that_dribbles_in_ends_the_connection(serve: Serve) -> None:
    server = serve(body_timeout_s=0.4)
    created = server.create()
    for part in (frame(1, b"{}")[:-1], frame(1, b"{", fin=False), b"\x81"):
        with server.attach(created, close_timeout=0.1) as viewer:
            assert read(viewer).type == "hello"
            viewer.socket.sendall(part)
            with pytest.raises(ConnectionClosed) as closed:
                read_until(viewer, "closing")
            assert (close_of(closed).code, close_of(closed).reason) == (
                1008,
                "a message must be whole within 0.4 s",
            )
    server.delete(created)


def test_many_small_messages_leave_the_loop_to_others(server: Running) -> None:
    """They are parsed one by one as they are answered, not a whole buffer of them at once."""
    created = server.create()
    with server.attach(created) as viewer:
        viewer.socket.sendall(frame(1, b"7") * 3000)
        viewer.send('{"type": "resume", "ref": "last"}')
        while True:
            message = read(viewer)
            if getattr(message, "ref", None) == "last":
                break
    server.delete(created)


def test_a_tls_handshake_has_a_deadline(tmp_path: Any) -> None:
    async def main() -> None:
        def make(connection: Any) -> asyncio.Protocol:
            return asyncio.Protocol()

        connections = Connections(ServeSettings(), Metrics(), 8)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            listener = Listener(
                sock,
                connections,
                make,
                tls=tls_context(*map(str, write_certificate(tmp_path))),
                handshake_s=0.3,
                is_counted=lambda address: True,
            )
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            assert await reader.read() == b""
            writer.close()
            # Those that have not said a word can be cut off for newcomers too.
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            while not len(connections):
                await asyncio.sleep(0.01)
            assert connections.make_room()
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            listener.close()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
