"""Clients that do not behave, each in a process of its own, until their standard input ends.

python benchmarks/abuses.py half_open http://127.0.0.1:8000
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Event
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import connect

PROMPT = "a red circle moves right"
SOURCE = "127.0.0.2"
"""All of 127.0.0.0/8 is this machine."""

Abuse = Callable[[str, Event], None]


def dial(url: str) -> socket.socket:
    """A connection from the other address."""
    sock = socket.socket()
    sock.settimeout(10)
    sock.bind((SOURCE, 0))
    parts = urlsplit(url)
    sock.connect((parts.hostname, parts.port))
    return sock


def half_open(url: str, over: Event) -> None:
    """300 connections whose header never ends, made again as they are cut off."""
    socks: list[socket.socket] = []
    while not over.wait(0.05):
        with suppress(OSError):  # at most 400 new ones per second
            for _ in range(min(20, 300 - len(socks))):
                socks.append(dial(url))
                socks[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        kept = []
        for sock in socks:
            sock.setblocking(False)
            try:
                if sock.recv(1):
                    kept.append(sock)
            except BlockingIOError:
                kept.append(sock)
            except OSError:
                pass
        socks = kept


def long_headers(url: str, over: Event) -> None:
    """20 connections that send headers of 10 MiB."""
    part = b"x" * 2**20
    while not over.is_set():
        with ExitStack() as stack:
            socks = [stack.enter_context(dial(url)) for _ in range(20)]
            for sock in socks:
                with suppress(OSError):
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ")
                    for _ in range(10):
                        sock.sendall(part)
        over.wait(0.5)


@contextmanager
def session_of(url: str) -> Iterator[tuple[httpx.Client, str]]:
    """A session, and a client that holds its token; to be offered WebRTC."""
    transport = httpx.HTTPTransport(local_address=SOURCE)
    with httpx.Client(base_url=url, timeout=60, transport=transport) as client:
        created = client.post("/v1/sessions", json={"prompt": PROMPT, "grace_s": 30}).json()
        client.headers["Authorization"] = f"Bearer {created['token']}"
        yield client, f"/v1/sessions/{created['id']}"
        client.delete(f"/v1/sessions/{created['id']}")


OFFER = """v=0\r
o=- 1 1 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE {names}\r
"""
MEDIA = """m=video 9 UDP/TLS/RTP/SAVPF 96\r
c=IN IP4 0.0.0.0\r
a=rtcp-mux\r
a=mid:{name}\r
a=recvonly\r
a=ice-ufrag:abcd\r
a=ice-pwd:abcdefghijklmnopqrstuvwx\r
a=fingerprint:sha-256 {fingerprint}\r
a=setup:actpass\r
a=rtpmap:96 VP8/90000\r
{candidates}"""
CANDIDATE = "a=candidate:{i} 1 udp 2122260223 127.0.0.1 {port} typ host\r\n"


def offer(medias: int, candidates: int) -> str:
    """A session description with so many media and candidates."""
    named = "".join(CANDIDATE.format(i=i, port=20_000 + i) for i in range(candidates))
    media = [
        MEDIA.format(name=i, fingerprint=":".join(["AB"] * 32), candidates=named if i == 0 else "")
        for i in range(medias)
    ]
    return OFFER.format(names=" ".join(map(str, range(medias)))) + "".join(media)


def _offers(url: str, over: Event, sdp: str) -> None:
    while not over.is_set():
        with session_of(url) as (client, path):
            for _ in range(20):
                if over.is_set():
                    break
                with suppress(httpx.HTTPError):
                    client.post(f"{path}/webrtc", json={"type": "offer", "sdp": sdp})
                over.wait(0.2)


def many_media(url: str, over: Event) -> None:
    """Offers of 100 media each."""
    _offers(url, over, offer(100, 1))


def many_candidates(url: str, over: Event) -> None:
    """Offers of 700 candidates each."""
    _offers(url, over, offer(1, 700))


def greedy(url: str, over: Event) -> None:
    """One client that wants 16 sessions, and watches as many as it gets."""

    async def watch(created: dict[str, str]) -> None:
        path = f"{url.replace('http', 'ws')}/v1/sessions/{created['id']}/ws?format=raw"
        headers = {"Authorization": f"Bearer {created['token']}"}
        async with connect(
            path, additional_headers=headers, local_addr=(SOURCE, 0), max_queue=None
        ) as viewer:
            while not over.is_set():
                await viewer.recv()

    async def main() -> None:
        transport = httpx.AsyncHTTPTransport(local_address=SOURCE)
        watching = []
        async with httpx.AsyncClient(base_url=url, timeout=60, transport=transport) as client:
            for seed in range(16):
                body = {"prompt": PROMPT, "seed": seed, "grace_s": 0}
                reply = await client.post("/v1/sessions", json=body)
                if reply.status_code == 201:  # else it has its share
                    watching.append(asyncio.create_task(watch(reply.json())))
                await asyncio.sleep(0.1)
        await asyncio.gather(*watching, return_exceptions=True)

    asyncio.run(main())


def flood_of_refusals(url: str, over: Event) -> None:
    """Requests that are no HTTP, each of which is worth a line in the log."""
    while not over.is_set():
        with suppress(OSError), dial(url) as sock:
            sock.sendall(b"\x16\x03\x01\r\n\r\n")
            sock.recv(1024)


ABUSES: dict[str, Abuse] = {
    "300 half-open sockets": half_open,
    "headers of 10 MiB": long_headers,
    "offers of 100 media": many_media,
    "offers of 700 candidates": many_candidates,
    "a greedy client of 16": greedy,
    "a log that nobody reads": flood_of_refusals,
}


def main() -> None:
    name, url = sys.argv[1:]
    over = Event()

    def await_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=await_end, daemon=True).start()
    print("begins", flush=True)
    by_name = {abuse.__name__: abuse for abuse in ABUSES.values()}
    by_name[name](url, over)


if __name__ == "__main__":
    main()
