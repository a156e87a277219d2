"""Every open connection of a server: how many there may be, and which have to go."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Literal

from pyrf.serve.metrics import Metrics
from pyrf.serve.sessions.rates import RateLimit
from pyrf.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

Phase = Literal["handshake", "header", "body", "idle", "busy", "message", "closing"]
"""What a connection does: "busy" while it is the server's turn, or a viewer watches; else it waits."""

RESERVE = 8
"""Connections beyond the limits that are asked for health only."""
CLOSING_S = 5.0
"""Seconds without progress that a connection which the server has closed may stay for what is left."""
SLOWEST_BYTES_PER_S = 1024
"""A client that takes less for `send_timeout_s` counts as one that does not read."""
SWEEP_S = 0.5
"""Seconds between two looks at all connections, at most."""
MOST_FILES = 65_536
"""As many open files as a server asks the system for."""
FILES_PER_SESSION = 4
"""Sockets that the WebRTC viewer of a session may need."""
LONGEST_HOLD_S = 0.5
"""Seconds that a request is held back, at most."""
OTHER_FILES = 32
"""Whatever else is opened now and then."""

# Who has not sent all of its request yet, or has no request under way, may be cut off for a newcomer.
_EVICTABLE = frozenset({"handshake", "header", "body", "idle", "closing"})


class Connection:
    """One connection. What speaks its protocol tells it what it does.

    Args:
        address: the other end; None for one that is not counted by address, as a proxy's.
        is_reserved: whether only questions after health are answered on it.

    Attributes:
        phase: what it does.
        since: when that began, on the monotonic clock.
        abort: closes it without a word.
        expire: tells the client that its time of so many seconds is over, and closes.
        unsent: tells the bytes that wait for the client.
        is_closing: tells whether the server has closed it.
    """

    def __init__(self, address: str | None, is_reserved: bool) -> None:
        self.address, self.is_reserved = address, is_reserved
        self.phase: Phase = "handshake"
        self.since = time.monotonic()
        self.abort: Callable[[], object] = lambda: None
        self.expire: Callable[[float], object] = lambda limit_s: None
        self.unsent: Callable[[], int] = lambda: 0
        self.is_closing: Callable[[], bool] = lambda: False
        self._stalled: tuple[float, int] | None = None

    def enter(self, phase: Phase, *, anew: bool = False) -> None:
        """Go over to a phase; `anew` counts its time from now even when it is the same."""
        if phase != self.phase or anew:
            self.phase, self.since = phase, time.monotonic()

    def stall(self) -> None:
        """The client takes no more for now."""
        self._stalled = time.monotonic(), self.unsent()

    def flow(self) -> None:
        """The client has taken most of what waited for it."""
        self._stalled = None

    def has_stalled(self, now: float, limit_s: float) -> bool:
        """Whether hardly anything was taken for so long."""
        if self._stalled is None or now - self._stalled[0] < limit_s:
            return False
        unsent, before = self.unsent(), self._stalled[1]
        self._stalled = now, unsent
        return unsent > before - SLOWEST_BYTES_PER_S * limit_s


class Connections:
    """The connections of a server. Lives on the event loop.

    A newcomer beyond a limit takes the place of the connection that has been waited for the longest: of the
    same address when that has its share, else of the address with the most connections. When all are at work
    the newcomer may only ask after health, so that this is answered whatever happens.

    Args:
        settings: limits.
        metrics: where cut connections are counted.
        limit: connections at a time, at most `settings.max_connections`.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics, limit: int) -> None:
        self._metrics, self._limit = metrics, limit
        # One address never has all.
        self._share = min(settings.max_connections_per_address, max(1, limit * 3 // 4))
        self._send_timeout_s = settings.send_timeout_s
        self._limits: dict[Phase, tuple[float, str]] = {
            "handshake": (settings.header_timeout_s, "header"),
            "header": (settings.header_timeout_s, "header"),
            "body": (settings.body_timeout_s, "body"),
            "message": (settings.body_timeout_s, "body"),
            "idle": (settings.idle_timeout_s, "idle"),
        }
        shortest = min(self._send_timeout_s, *(limit_s for limit_s, _ in self._limits.values()))
        self._sweep_s = min(SWEEP_S, shortest / 4)
        # Two seconds' worth may come at once.
        self._requests = RateLimit(settings.requests_per_second, 2 * settings.requests_per_second)
        self._open: dict[Connection, None] = {}
        self._reserve: dict[Connection, None] = {}
        self._by_address: dict[str, dict[Connection, None]] = defaultdict(dict)
        metrics.count_connections = self.__len__

    def __len__(self) -> int:
        return len(self._open) + len(self._reserve)

    def make(self, address: str | None) -> Connection | None:
        """Let a newcomer in; None when there is no room, not even for a question after health."""
        own = self._by_address.get(address, {}) if address is not None else {}
        if len(own) >= self._share:
            is_reserved = not self._evict(own)
        elif len(self._open) >= self._limit:
            is_reserved = not any(map(self._evict, self._greediest_first()))
        else:
            is_reserved = False
        if is_reserved and len(self._reserve) >= RESERVE and not self._evict(self._reserve):
            self._metrics.cut.labels("refused").inc()
            return None
        connection = Connection(address, is_reserved)
        self._add(connection)
        return connection

    def _add(self, connection: Connection) -> None:
        if connection.is_reserved:
            self._reserve[connection] = None
            return
        self._open[connection] = None
        if connection.address is not None:
            self._by_address[connection.address][connection] = None

    def remove(self, connection: Connection) -> None:
        """It is over; what is not there is ignored."""
        self._reserve.pop(connection, None)
        self._open.pop(connection, None)
        own = self._by_address.get(connection.address or "", {})
        own.pop(connection, None)
        if not own:
            self._by_address.pop(connection.address or "", None)

    def make_room(self) -> bool:
        """Cut one connection off, as descriptors have run out; whether there was one."""
        return any(map(self._evict, self._greediest_first()))

    def _greediest_first(self) -> list[Collection[Connection]]:
        groups: list[Collection[Connection]] = [own.keys() for own in self._by_address.values()]
        groups.append([connection for connection in self._open if connection.address is None])
        return sorted(groups, key=len, reverse=True)

    def _evict(self, candidates: Iterable[Connection]) -> bool:
        """Cut off the one that was waited for the longest; whether there was one."""
        idle = [c for c in candidates if c.phase in _EVICTABLE or c.is_closing()]
        if not idle:
            return False
        self._cut(min(idle, key=lambda connection: connection.since), "evicted")
        return True

    def _cut(self, connection: Connection, reason: str) -> None:
        self._metrics.cut.labels(reason).inc()
        self.remove(connection)
        connection.abort()

    def hold_back_s(self, connection: Connection) -> float:
        """Seconds that the next request of a connection has to wait, as its address sends too many."""
        if connection.address is None:
            return 0.0
        return min(self._requests.wait_for(connection.address), LONGEST_HOLD_S)

    async def sweep(self) -> None:
        """Cut off whoever is too slow, for ever."""
        while True:
            await asyncio.sleep(self._sweep_s)
            now = time.monotonic()
            for connection in [*self._open, *self._reserve]:
                self._look_at(connection, now)

    def _look_at(self, connection: Connection, now: float) -> None:
        if connection.is_closing():
            if connection.phase != "closing":
                connection.enter("closing")
                connection.stall()
            elif connection.has_stalled(now, CLOSING_S):
                self._cut(connection, "closing")
            return
        limit_s, reason = self._limits.get(connection.phase, (None, ""))
        if limit_s is not None and now - connection.since > limit_s:
            if connection.phase == "handshake":
                self._cut(connection, reason)
                return
            self._metrics.cut.labels(reason).inc()
            connection.expire(limit_s)
        elif connection.has_stalled(now, self._send_timeout_s):
            logger.info("a client reads nothing", extra={"address": connection.address})
            self._cut(connection, "send")

    def close_waiting(self) -> None:
        """Cut off all that have no request under way, as the server ends."""
        for connection in [c for c in (*self._open, *self._reserve) if c.phase in _EVICTABLE]:
            self.remove(connection)
            connection.abort()


def connection_limit(settings: ServeSettings) -> int:
    """How many connections the system leaves room for; the process's limit of open files is raised first.

    Raises:
        ValueError: when there is room for none.
    """
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return settings.max_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return settings.max_connections
    needed = _open_files() + FILES_PER_SESSION * settings.max_sessions + OTHER_FILES + RESERVE
    if soft - needed < 1:
        raise ValueError(
            f"the system lets this process open {soft} files, and {settings.max_sessions} sessions need "
            f"{needed + 1}; raise the limit (ulimit -n) or lower --max-sessions"
        )
    return min(settings.max_connections, soft - needed)


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.is_dir() else OTHER_FILES  # noqa: PTH208  # counted, not walked
