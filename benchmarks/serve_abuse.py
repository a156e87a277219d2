"""What other viewers notice of clients that do not behave.

Each abuse (`abuses.py`) comes from a process of its own and from another address, while two viewers watch and
health is asked for. All of it is on one machine, so that the abuse takes processor time from the server too.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from abuses import ABUSES

from pyrf.client import AsyncClient, AsyncSession
from pyrf.machine import percentile
from pyrf.reports.bench import PROMPT

VIEWERS = 2
FILES = 256
"""Open files that the server may have."""
HEALTH_S, MEMORY_MIB, INTERVALS = 1.0, 64.0, 2.0
"""What is allowed: of health, of memory, and of intervals as a multiple of those without abuse."""
SETTLE_S = 2.0
"""Seconds from the begin or the end of an abuse to the next measurement."""


async def poll_health(url: str, seconds: float) -> float:
    """The longest that health took to answer on a new connection, in seconds."""
    longest, until = 0.0, time.perf_counter() + seconds
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        while time.perf_counter() < until:
            start = time.perf_counter()
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
        before, used = server.memory_info().rss, sum(server.cpu_times()[:2])
        until = time.perf_counter() + seconds
        *players, health_s = await asyncio.gather(
            *(watch(session, until) for session in sessions), poll_health(url, seconds)
        )
        used = sum(server.cpu_times()[:2]) - used
        growth = (server.memory_info().rss - before) / 2**20
        for session in sessions:
            await session.close()
    intervals = [1e3 * interval for player in players for interval in player.intervals]
    return {
        "p99_ms": percentile(intervals, 99),
        "health_s": health_s,
        "growth_mib": growth,
        "cpu": used / seconds,
    }


def measure_abuse(
    url: str, watch: Callable[[AsyncSession, float], Any], seconds: float, server: psutil.Process
) -> dict[str, dict[str, float]]:
    """Each abuse beside two viewers, after the same without abuse."""

    def look() -> dict[str, float]:
        return asyncio.run(watch_beside(url, watch, seconds, server)) | {"load": os.getloadavg()[0]}

    look()  # all code has run once
    result = {"no abuse": look()}
    for name, abuse in ABUSES.items():
        command = [sys.executable, str(Path(__file__).with_name("abuses.py")), abuse.__name__, url]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:  # its input ends with this block
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(SETTLE_S)
            result[name] = look()
        time.sleep(SETTLE_S)
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
            f"RSS {seen['growth_mib']:+.1f} MiB (< {MEMORY_MIB:.0f}); "
            f"server's processors {seen['cpu']:.2f}, load {seen['load']:.1f}"
        )
    return lines
