"""Whose chunk is next: one thread owns the model, and sessions take turns by deadline."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeVar

from pyrf.loop.finite import NotFiniteError
from pyrf.protocol import EndReason
from pyrf.serve.metrics import Metrics
from pyrf.serve.sessions.calls import CallLengths
from pyrf.serve.sessions.shares import Shares
from pyrf.streaming.chunk import Chunk
from pyrf.streaming.lockstep import next_chunks
from pyrf.streaming.stream import Stream

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Schedulable(Protocol):
    """What takes turns: a session, as the scheduler sees it.

    Attributes:
        created: monotonic time in seconds.
        deadline: when its viewer runs dry, on the monotonic clock.
        chunks_started: so far.
    """

    id: str
    stream: Stream
    created: float
    deadline: float
    chunks_started: int

    @property
    def address(self) -> str:
        """Of whoever asked for it; when there is not enough time for all, addresses get the same."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame; only those of one size are computed together."""
        ...

    def ready_at(self) -> float | None:
        """From when on the next chunk may be made; None when something else has to happen first."""
        ...

    def start_chunk(self) -> None:
        """Begin the next chunk of `stream`; it is not ready again before that is finished or failed."""
        ...

    def finish_chunk(self, chunk: Chunk | None, batch: int, began: int, ended: int) -> int | None:
        """Take the chunk, made with `batch - 1` others from and to a Unix time in nanoseconds.

        Returns:
            Frames that had to be dropped for it; None when it comes too late.
        """
        ...

    def fail_chunk(self, reason: EndReason = "failed") -> None:
        """The chunk cannot be made."""
        ...


class Scheduler:
    """Makes chunks for the sessions that are ready for one.

    Of those the one whose viewer runs dry first is served (earliest deadline first), together with the next
    ones whose frames have its size. A session that missed its deadline starts anew from the moment it was
    served, so when all are late they simply take turns. Then each address gets as many turns as any other, so
    that who holds many sessions is late, and nobody else. Calls have fewer sessions then, if that makes them
    shorter: who takes its due must not run dry behind a long one.

    Args:
        max_batch: sessions that are computed in one call.
        lead_s: seconds that a viewer is ahead when its session becomes ready.
    """

    def __init__(self, metrics: Metrics, max_batch: int, lead_s: float) -> None:
        self._metrics, self._max_batch = metrics, max_batch
        self._sessions: dict[str, Schedulable] = {}
        self._changed = asyncio.Event()
        self._chance = random.Random(0).random
        self._shares = Shares()
        # The call under way, the session's own, and one to spare.
        self._calls = CallLengths(lead_s / 3)
        self._stopping = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="pyrf-model")
        self._running = asyncio.create_task(self._run())

    def add(self, session: Schedulable) -> None:
        self._sessions[session.id] = session
        self.wake()

    def remove(self, session: Schedulable) -> None:
        self._sessions.pop(session.id, None)

    def wake(self) -> None:
        """A session may have become ready."""
        self._changed.set()

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job in the model's thread, after what is under way there."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, job)

    async def stop(self) -> None:
        """Finish the chunk under way, and start no other."""
        self._stopping = True
        self.wake()
        await self._running
        self._worker.shutdown(wait=False)

    async def _run(self) -> None:
        while not self._stopping:
            self._changed.clear()
            sessions, wait_s = self._next()
            if sessions:
                await self._serve(sessions)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    def _next(self) -> tuple[list[Schedulable], float | None]:
        """The sessions to serve, or the seconds until one is ready (None: not before something changes)."""
        now = time.monotonic()
        waiting = [(at, s) for s in self._sessions.values() if (at := s.ready_at()) is not None]
        # Those of one call share a deadline: chance decides, lest the same ones always come first.
        ready = sorted((s for at, s in waiting if at <= now), key=lambda s: (s.deadline, self._chance()))
        most = self._max_batch
        if _too_much(ready, now):
            ready = self._shares.order(ready)
            most = self._calls.most(most)
        self._metrics.queue.set(len(ready))
        if not ready:
            return [], min((at - now for at, _ in waiting), default=None)
        first = ready[0]
        if first.chunks_started == 0:
            return [first], None  # alone it is sooner
        company = [s for s in ready if s.size == first.size and s.chunks_started > 0]
        return company[:most], None

    async def _serve(self, sessions: list[Schedulable]) -> None:
        """Make a chunk of each, in one call."""
        now = time.monotonic()
        for session in sessions:
            self._metrics.wait.observe(max(0.0, now - (session.ready_at() or now)))

        def job() -> tuple[list[Chunk | NotFiniteError | None], int, int]:
            began = time.time_ns()
            return next_chunks([session.stream for session in sessions]), began, time.time_ns()

        self._shares.count(sessions)
        try:
            for session in sessions:
                session.start_chunk()
            chunks, began, ended = await self.run(job)
        except Exception as error:
            logger.error("chunk failed", exc_info=error, extra={"session": [s.id for s in sessions]})
            for session in sessions:
                session.fail_chunk()
            return
        self._metrics.batch.observe(len(sessions))
        self._calls.count(len(sessions), (ended - began) / 1e9)
        for session, chunk in zip(sessions, chunks):
            if isinstance(chunk, NotFiniteError):
                logger.error("chunk is not finite", exc_info=chunk, extra={"session": [session.id]})
                session.fail_chunk("not_finite")
                continue
            dropped = session.finish_chunk(chunk, len(sessions), began, ended)
            if chunk is not None and dropped is not None:
                self._count(session, chunk, dropped)

    def _count(self, session: Schedulable, chunk: Chunk, dropped: int) -> None:
        self._metrics.chunk.observe(chunk.timing.total)
        self._metrics.frames.inc(len(chunk.frames))
        self._metrics.dropped.inc(dropped)
        if chunk.index == 0:
            self._metrics.first_frame.observe(time.monotonic() - session.created)


def _too_much(ready: Sequence[Schedulable], now: float) -> bool:
    """Whether some viewer runs dry already, or several new ones wait at once."""
    new = sum(session.chunks_started == 0 for session in ready)
    return new > 1 or any(session.deadline < now for session in ready if session.chunks_started > 0)
