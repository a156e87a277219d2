"""Whose chunk is next: one thread owns the model, and sessions take turns by deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyrf.serve.metrics import Metrics
from pyrf.serve.session import Session

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Scheduler:
    """Makes chunks, one at a time, for the sessions that are ready for one.

    Of those the one whose viewer runs dry first is served (earliest deadline first). A session that missed
    its deadline starts anew from the moment it was served, so when all are late they simply take turns.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sessions: dict[str, Session] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="pyrf-model")
        self._running = asyncio.create_task(self._run())

    def add(self, session: Session) -> None:
        self._sessions[session.id] = session
        self.wake()

    def remove(self, session: Session) -> None:
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
            session, wait_s = self._next()
            if session is not None:
                await self._serve(session)
                continue
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _next(self) -> tuple[Session | None, float | None]:
        """The session to serve, or the seconds until one is ready (None: not before something changes)."""
        now = time.monotonic()
        waiting = [(at, s) for s in self._sessions.values() if (at := s.ready_at()) is not None]
        ready = [session for at, session in waiting if at <= now]
        self._metrics.queue.set(len(ready))
        if ready:
            return min(ready, key=lambda session: session.deadline), None
        return None, min((at - now for at, _ in waiting), default=None)

    async def _serve(self, session: Session) -> None:
        self._metrics.wait.observe(max(0.0, time.monotonic() - (session.ready_at() or 0.0)))
        job = session.start_chunk()
        try:
            chunk = await self.run(job)
        except Exception as error:
            logger.error("chunk failed", exc_info=error, extra={"session": session.id})
            session.end("failed")
            return
        finally:
            session.under_way = False
        if chunk is None or session.ending is not None:
            return  # closed while the chunk was under way
        self._metrics.chunk.observe(chunk.timing.total)
        self._metrics.frames.inc(len(chunk.frames))
        if chunk.index == 0:
            self._metrics.first_frame.observe(time.monotonic() - session.created)
        self._metrics.dropped.inc(session.finish_chunk(chunk))
