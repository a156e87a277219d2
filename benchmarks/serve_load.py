"""How many viewers a server bears, and what it bears from them.

    python benchmarks/serve_load.py --threads 2

Starts `pyrf serve` as a process of its own and measures it from here through the Python client, over
loopback and with raw frames, so the client's work is part of the load. A frame interval is what a player
shows: a frame is played when it has arrived and the one before was on for 1 / fps. First it starts
`pyrf serve --ray` with two replicas and kills one (not with `--no-ray`). Last come clients that do not behave
(`serve_abuse.py`); the exit code is 1 when other viewers notice them too much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch
from serve_abuse import FILES, measure_abuse, verdicts
from serve_nonsense import fuzz_http, fuzz_websocket
from websockets.asyncio.client import connect

from pyrf.client import AsyncClient, AsyncSession, SessionLostError
from pyrf.machine import percentile, processor
from pyrf.reports.bench import PROMPT

OTHER_PROMPT = "a blue square bounces"
VIEWERS = (1, 4, 16)
# All of the load comes from one address.
ROOMY = ("--max-sessions", "64", "--creates-per-minute", "1000000", "--max-detached-per-address", "64")


class Player:
    """When the frames of a session are played."""

    def __init__(self, fps: float) -> None:
        self.period, self.last = 1 / fps, 0.0
        self.frames = 0
        self.intervals: list[float] = []

    def take(self) -> float:
        """A frame has arrived: when it is played."""
        now = time.perf_counter()
        played = max(now, self.last + self.period)
        if self.frames:
            self.intervals.append(played - self.last)
        self.frames, self.last = self.frames + 1, played
        return played


async def watch(session: AsyncSession, until: float) -> Player:
    """Play a session until a moment."""
    player = Player(session.created.fps)
    async for _ in session:
        player.take()
        if time.perf_counter() > until:
            break
    return player


async def measure_viewers(client: AsyncClient, count: int, seconds: float) -> dict[str, Any]:
    """Aggregate FPS and frame intervals in real time, and aggregate FPS as fast as can be."""
    result: dict[str, Any] = {"viewers": count}
    for pace in ("realtime", "max"):
        sessions = [await client.create_session(PROMPT, seed=i, pace=pace) for i in range(count)]
        start = time.perf_counter()
        players = await asyncio.gather(*(watch(session, start + seconds) for session in sessions))
        elapsed = time.perf_counter() - start
        result[f"{pace}_fps"] = sum(player.frames for player in players) / elapsed
        if pace == "realtime":
            intervals = [1e3 * interval for player in players for interval in player.intervals]
            result["interval_p50_ms"] = percentile(intervals, 50)
            result["interval_p99_ms"] = percentile(intervals, 99)
            result["dropped"] = sum([(await session.info()).frames_dropped for session in sessions])
        for session in sessions:
            await session.close()
    return result


@asynccontextmanager
async def deaf(client: AsyncClient, url: str) -> AsyncIterator[AsyncSession]:
    """A viewer that attaches and never reads."""
    session = await client.create_session(PROMPT, grace_s=0)
    created = session.created
    path = f"{url.replace('http', 'ws')}/v1/sessions/{created.id}/ws?format=raw"
    headers = {"Authorization": f"Bearer {created.token}"}
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)  # the system's buffers hold half a minute
    sock.connect((urlsplit(url).hostname, urlsplit(url).port))
    options: dict[str, Any] = {"max_queue": 1, "compression": None, "close_timeout": 0.1}
    async with connect(path, sock=sock, additional_headers=headers, **options):
        yield session


async def measure_deaf(
    client: AsyncClient, url: str, server: psutil.Process, seconds: float
) -> dict[str, Any]:
    """What a viewer that never reads costs another one and the server."""
    async with deaf(client, url) as stuck, await client.create_session(PROMPT) as lively:
        await watch(lively, time.perf_counter() + seconds / 2)
        before = server.memory_info().rss
        player = await watch(lively, time.perf_counter() + seconds)
        intervals = [1e3 * interval for interval in player.intervals[1:]]
        return {
            "interval_p99_ms": percentile(intervals, 99),
            "dropped_of_lively": (await lively.info()).frames_dropped,
            "dropped_of_deaf": (await stuck.info()).frames_dropped,
            "rss_growth_percent": 100 * (server.memory_info().rss / before - 1),
        }


async def measure_first_frame(client: AsyncClient, count: int) -> list[float]:
    """Milliseconds from asking for a session to its first frame."""
    times = []
    for seed in range(count):
        start = time.perf_counter()
        async with await client.create_session(PROMPT, seed=seed) as session:
            await anext(session)
            times.append(1e3 * (time.perf_counter() - start))
    return times


async def measure_prompts(client: AsyncClient, count: int) -> list[float]:
    """Chunks' lengths from sending a prompt to playing the first frame that shows it."""
    delays: list[float] = []
    rng = random.Random(0)
    async with await client.create_session(PROMPT) as session:
        chunk_s = (await client.server_info()).frames_in_chunk / session.created.fps
        player, sent, wanted = Player(session.created.fps), 0.0, 0
        loop = asyncio.get_running_loop()

        async def switch() -> None:
            nonlocal sent, wanted
            await asyncio.sleep(rng.uniform(0, chunk_s))
            sent = time.perf_counter()
            text = PROMPT if wanted % 2 else OTHER_PROMPT
            wanted = (await session.set_prompt(text)).prompt_id

        switching: asyncio.Task[None] | None = None
        async for frame in session:
            played = player.take()
            if switching is None and frame.header.chunk > 1:
                switching = loop.create_task(switch())
            elif switching and switching.done() and frame.header.prompt_id == wanted:
                delays.append((played - sent) / chunk_s)
                if len(delays) == count:
                    break
                switching = loop.create_task(switch())
    return delays


async def measure_cycles(client: AsyncClient, server: psutil.Process, count: int) -> dict[str, Any]:
    """Memory after many sessions that were created, watched for a frame, and left or closed."""

    async def cycle(i: int) -> None:
        session = await client.create_session(PROMPT, seed=i, grace_s=0)
        await anext(session)
        await (session.close() if i % 2 else session.disconnect())

    for i in range(max(1, count // 10)):
        await cycle(i)
    before = server.memory_info().rss
    for i in range(count):
        await cycle(i)
    after = server.memory_info().rss
    return {"cycles": count, "rss_mib": after / 2**20, "rss_growth_percent": 100 * (after / before - 1)}


async def measure_kill(url: str, server: psutil.Process, seconds: float) -> dict[str, Any]:
    """What two viewers see, one on each replica, when a replica is killed, and when the next one can come."""
    lost = asyncio.Event()

    async def outlive(session: AsyncSession) -> Player | None:
        """The player of a session that goes on after the other one was lost."""
        player = Player(session.created.fps)
        try:
            async for _ in session:
                player.take()
                if lost.is_set() and time.perf_counter() > killed + seconds:
                    break
        except SessionLostError:
            told.append(time.perf_counter() - killed)
            lost.set()
            return None
        return player

    told: list[float] = []
    async with AsyncClient(url, timeout=120) as client:
        sessions = [await client.create_session(PROMPT) for _ in range(2)]
        for session in sessions:
            await anext(session)
        replicas = [p for p in server.children(recursive=True) if "ServeReplica" in " ".join(p.cmdline())]
        replicas[0].kill()
        killed = time.perf_counter()
        players = [player for player in await asyncio.gather(*map(outlive, sessions)) if player is not None]
        intervals = [1e3 * interval for player in players for interval in player.intervals]
        start, lost_again = time.perf_counter(), 0
        while True:
            newcomer = await client.create_session(PROMPT)
            try:
                await anext(newcomer)
                break
            except SessionLostError:
                lost_again += 1
        next_ms = 1e3 * (time.perf_counter() - start)
        for session in (newcomer, *sessions):
            await session.close()
        return {
            "told_ms": [1e3 * moment for moment in told],
            "viewers_left": len(players),
            "interval_p99_ms": percentile(intervals, 99),
            "next_session_ms": next_ms,
            "next_sessions_lost": lost_again,
        }


async def measure(url: str, server: psutil.Process, arguments: argparse.Namespace) -> dict[str, Any]:
    async with AsyncClient(url, timeout=120) as client:
        result: dict[str, Any] = {}
        first = await measure_first_frame(client, arguments.repeats)
        result["first_frame_ms"] = {"p50": percentile(first, 50), "max": max(first)}
        prompts = await measure_prompts(client, arguments.repeats)
        result["prompt_to_picture_chunks"] = {"p50": percentile(prompts, 50), "max": max(prompts)}
        result["viewers"] = [
            await measure_viewers(client, count, arguments.seconds) for count in arguments.viewers
        ]
        result["deaf"] = await measure_deaf(client, url, server, arguments.seconds)
        result["cycles"] = await measure_cycles(client, server, arguments.cycles)
        alive = await fuzz_websocket(client, url, arguments.messages)
        http = await asyncio.to_thread(fuzz_http, url, arguments.messages)
        sessions = (await client.server_info()).sessions
        result["fuzz"] = {
            "websocket_messages": arguments.messages,
            "session_alive": alive,
            **http,
            "sessions_left": sessions,
        }
        async with aclosing(client.video(PROMPT, 81)) as pieces:
            result["clip_after_all_bytes"] = sum([len(piece) async for piece in pieces])
        return result


def tables(result: dict[str, Any]) -> str:
    """The result as tables for docs/serving.md."""
    viewers: list[tuple[str, ...]] = [
        ("viewers", "real time, FPS in all", "interval p50, ms", "p99, ms", "pace max, FPS in all"),
        ("---",) * 5,
    ]
    for row in result["viewers"]:
        figures = ("realtime_fps", "interval_p50_ms", "interval_p99_ms", "max_fps")
        viewers.append((str(row["viewers"]), *(f"{row[figure]:.1f}" for figure in figures)))
    first, prompts = result["first_frame_ms"], result["prompt_to_picture_chunks"]
    lost, cycles, fuzz = (result[name] for name in ("deaf", "cycles", "fuzz"))
    others = [
        ("what", "result"),
        ("---", "---"),
        ("first frame of a new session", f"p50 {first['p50']:.0f} ms, max {first['max']:.0f} ms"),
        ("prompt to picture", f"p50 {prompts['p50']:.2f}, max {prompts['max']:.2f} chunks"),
        (
            "one viewer beside one that never reads",
            f"interval p99 {lost['interval_p99_ms']:.1f} ms, {lost['dropped_of_lively']} frames dropped",
        ),
        (
            "the one that never reads",
            f"{lost['dropped_of_deaf']} frames dropped, RSS {lost['rss_growth_percent']:+.1f} %",
        ),
        (
            f"{cycles['cycles']:,} sessions begun and left",
            f"RSS {cycles['rss_growth_percent']:+.1f} % to {cycles['rss_mib']:.0f} MiB",
        ),
        (
            f"{fuzz['websocket_messages']:,} WebSocket messages of nonsense",
            f"session {'alive' if fuzz['session_alive'] else 'DEAD'}",
        ),
        (f"{fuzz['requests']:,} requests of nonsense", f"{fuzz['server_errors']} server errors"),
    ]
    if kill := result.get("kill"):
        others += [
            ("a Ray replica is killed: its viewer is told", f"after {kill['told_ms'][0]:.0f} ms"),
            (
                "the viewer of the other replica",
                f"{kill['viewers_left']} of 2 goes on, interval p99 {kill['interval_p99_ms']:.1f} ms",
            ),
            (
                "a new session's first frame after that",
                f"{kill['next_session_ms']:.0f} ms, {kill['next_sessions_lost']} lost before it",
            ),
        ]
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in table) for table in (viewers, others))


@contextmanager
def serving(
    *options: str, files: int | None = None, mute: bool = False
) -> Iterator[tuple[str, psutil.Process]]:
    """`pyrf serve` on a free port: its address and process; it must end well.

    Args:
        files: open files that it may have.
        mute: whether its log goes to a pipe that nobody reads.
    """
    few = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files})); " if files else ""
    )
    command = [
        sys.executable,
        "-c",
        f"{few}from pyrf.cli import main; main()",
        "serve",
        "--port",
        "0",
        *options,
    ]
    stderr = subprocess.PIPE if mute else None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if line.startswith("pyrf serves"))
            yield line.split()[-1], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise RuntimeError(f"the server ended with {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--viewers", type=int, nargs="+", default=VIEWERS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each count of viewers and pace")
    parser.add_argument("--repeats", type=int, default=20, help="new sessions, and prompts")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=10_000, help="to each of WebSocket and HTTP")
    parser.add_argument("--no-ray", action="store_true", help="leave out what needs Ray")
    parser.add_argument("--no-abuse", action="store_true", help="leave out the abuse")
    parser.add_argument("--only-abuse", action="store_true", help="leave out all but the abuse")
    arguments = parser.parse_args()
    base = ["--model", arguments.model, "--threads", str(arguments.threads), "--log-level", "warning"]
    base += ["--device", arguments.device, "--dtype", arguments.dtype]
    result: dict[str, Any] = {}
    if not arguments.no_ray and not arguments.only_abuse:
        with serving(*base, "--ray", "--replicas", "2", "--max-replicas", "2") as (url, server):
            result["kill"] = asyncio.run(measure_kill(url, server, arguments.seconds))
        print(json.dumps(result), flush=True)
    if not arguments.only_abuse:
        with serving(*base, *ROOMY) as (url, server):
            result |= asyncio.run(measure(url, server, arguments))
        print(tables(result))
    lines: list[str] = []
    if not arguments.no_abuse:
        with serving(*base, files=FILES, mute=True) as (url, server):
            result["abuse"] = measure_abuse(url, watch, arguments.seconds, server)
        lines = verdicts(result["abuse"])
        print("\n".join(lines))
    method = {**vars(arguments), "processor": processor(), "torch": torch.__version__}
    print(json.dumps({"method": method, **result}))
    if any(line.startswith("FAIL") for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
