"""What other viewers notice of clients that do not behave.

Each abuse comes from a process of its own and from another address, while two viewers watch and health is
asked for. All of it is on one machine, so that the abuse takes processor time from the server too.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.synchronize import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from pyrf.client import AsyncClient, AsyncSession
from pyrf.machine import percentile
from pyrf.reports.bench import PROMPT

VIEWERS = 2
SOURCE = "127.0.0.2"
"""All of 127.0.0.0/8 is this machine."""
FILES = 256
"""Open files that the server may have while the abuse is of sockets."""
HEALTH_S, MEMORY_MIB, INTERVALS = 1.0, 64.0, 2.0
"""What is allowed: of health, of memory, and of intervals as a multiple of those without abuse."""

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
        with suppress(OSError):
            while len(socks) < 300:
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

    async def watch(session: AsyncSession) -> None:
        async for _ in session:
            if over.is_set():
                return

    async def main() -> None:
        async with AsyncClient(url, timeout=60, patience=0) as client:
            client._calls._http._transport = httpx.AsyncHTTPTransport(local_address=SOURCE)
            sessions: list[AsyncSession] = []
            with suppress(Exception):  # refused: it has its share
                for seed in range(16):
                    sessions.append(await client.create_session(PROMPT, seed=seed, grace_s=0))
            await asyncio.gather(*map(watch, sessions), return_exceptions=True)
            for session in sessions:
                await session.close()

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


async def poll_health(url: str, seconds: float) -> float:
    """The longest that health took to answer on a new connection, in seconds."""
    longest, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        async with httpx.AsyncClient(timeout=60) as client:
            (await client.get(f"{url}/health/live")).raise_for_status()
        longest = max(longest, time.perf_counter() - start)
        await asyncio.sleep(0.25)
    return longest


async def watch_beside(
    url: str, watch: Callable[[AsyncSession, float], Any], seconds: float, server: psutil.Process
) -> dict[str, float]:
    """What two viewers and health see for some seconds."""
    async with AsyncClient(url, timeout=120) as client:
        sessions = [await client.create_session(PROMPT, seed=i) for i in range(VIEWERS)]
        for session in sessions:
            await anext(session)
        before = server.memory_info().rss
        until = time.perf_counter() + seconds
        *players, health_s = await asyncio.gather(
            *(watch(session, until) for session in sessions), poll_health(url, seconds)
        )
        growth = (server.memory_info().rss - before) / 2**20
        for session in sessions:
            await session.close()
    intervals = [1e3 * interval for player in players for interval in player.intervals]
    return {"p99_ms": percentile(intervals, 99), "health_s": health_s, "growth_mib": growth}


def measure_abuse(
    url: str, watch: Callable[[AsyncSession, float], Any], seconds: float, server: psutil.Process
) -> dict[str, dict[str, float]]:
    """Each abuse beside two viewers, after the same without abuse."""
    context = multiprocessing.get_context("spawn")

    def look() -> dict[str, float]:
        return asyncio.run(watch_beside(url, watch, seconds, server))

    look()  # all code has run once
    result = {"no abuse": look() | {"load": os.getloadavg()[0]}}
    for name, abuse in ABUSES.items():
        over = context.Event()
        process = context.Process(target=abuse, args=(url, over))
        process.start()
        time.sleep(3)  # until it has imported what it needs, and does its worst
        try:
            result[name] = look() | {"load": os.getloadavg()[0]}
        finally:
            over.set()
            process.join(60)
            process.kill()
        time.sleep(1)
    return result


def verdicts(result: dict[str, dict[str, float]]) -> list[str]:
    """A line for each abuse: whether what is allowed was kept."""
    allowed_ms = INTERVALS * result["no abuse"]["p99_ms"]
    lines = []
    for name, seen in result.items():
        kept = seen["p99_ms"] < allowed_ms and seen["health_s"] < HEALTH_S and seen["growth_mib"] < MEMORY_MIB
        lines.append(
            f"{'PASS' if kept else 'FAIL'}: {name}: interval p99 {seen['p99_ms']:.1f} ms "
            f"(< {allowed_ms:.1f}), health {1e3 * seen['health_s']:.0f} ms (< {1e3 * HEALTH_S:.0f}), "
            f"RSS {seen['growth_mib']:+.1f} MiB (< {MEMORY_MIB:.0f}); load {seen['load']:.1f}"
        )
    return lines
