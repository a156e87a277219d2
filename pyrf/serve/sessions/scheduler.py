"""Whose chunk is next: one thread owns all models, and their sessions take turns by deadline."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from pyrf.backends.torch.parallel.messages import RankLostError
from pyrf.loop.finite import NotFiniteError
from pyrf.protocol import EndReason
from pyrf.serve.metrics import Metrics
from pyrf.serve.sessions.calls import CallLengths
from pyrf.serve.sessions.shares import Shares
from pyrf.streaming.chunk import Chunk
from pyrf.streaming.lockstep import next_chunks
from pyrf.streaming.stream import Stream
from pyrf.video.watermark import Watermark

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
    def model(self) -> str:
        """The name of its model, whose calls have a length of their own."""
        ...

    @property
    def kin(self) -> Hashable:
        """Only those of one kin are computed together: of one model and one size of frames."""
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
    """Makes chunks for the sessions that are ready for one, whatever their models.

    Of those the one whose viewer runs dry first is served (earliest deadline first), together with the next
    ones of its model whose frames have its size. A session that missed its deadline starts anew from the
    moment it was served, so when all are late they simply take turns. Then each address gets as much of the
    models' time as any other: the same number of turns of one model, and fewer of a slower one. So who holds
    many sessions is late, or chose a slow model, and nobody else. Calls have fewer sessions then, if that
    makes them shorter: who takes its due must not run dry behind a long one.

    Args:
        max_batch: sessions that are computed in one call.
        lead_s: seconds that a viewer is ahead when its session becomes ready.
        watermark: what the frames of all sessions show.
    """

    def __init__(
        self, metrics: Metrics, max_batch: int, lead_s: float, watermark: Watermark | None = None
    ) -> None:
        self._metrics, self._max_batch = metrics, max_batch
        self._watermark = watermark
        self._sessions: dict[str, Schedulable] = {}
        self._changed = asyncio.Event()
        self._chance = random.Random(0).random
        self._shares: Shares[Schedulable] = Shares(self._turn)
        # By model. The lead is for the call under way, the session's own, and one to spare.
        self._calls = defaultdict[str, CallLengths](lambda: CallLengths(lead_s / 3))
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
        if is_late := self._too_much(ready, now):
            ready = self._shares.order(ready)
        self._metrics.queue.set(len(ready))
        if not ready:
            return [], min((at - now for at, _ in waiting), default=None)
        first = ready[0]
        if first.chunks_started == 0:
            return [first], None  # alone it is sooner
        company = [s for s in ready if s.kin == first.kin and s.chunks_started > 0]
        most = self._max_batch
        return company[: self._calls[first.model].most(most) if is_late else most], None

    def _too_much(self, ready: Sequence[Schedulable], now: float) -> bool:
        """Whether some viewer will run dry whatever is done now, or several new ones wait at once."""
        new = sum(session.chunks_started == 0 for session in ready)
        return new > 1 or any(
            session.deadline < now + self._calls[session.model].chunk_s
            for session in ready
            if session.chunks_started > 0
        )

    def _turn(self, session: Schedulable) -> float:
        """How long a turn of a session is, in turns of the slowest model."""
        slowest_s = max((calls.chunk_s for calls in self._calls.values()), default=0.0)
        return (self._calls[session.model].chunk_s or slowest_s) / slowest_s if slowest_s else 1.0

    async def _serve(self, sessions: list[Schedulable]) -> None:
        """Make a chunk of each, in one call."""
        now = time.monotonic()
        for session in sessions:
            self._metrics.wait.observe(max(0.0, now - (session.ready_at() or now)))

        def job() -> tuple[list[Chunk | NotFiniteError | None], int, int]:
            began = time.time_ns()
            chunks = next_chunks([session.stream for session in sessions])
            return [self._marked(chunk) for chunk in chunks], began, time.time_ns()

        self._shares.count(sessions)
        try:
            for session in sessions:
                session.start_chunk()
            chunks, began, ended = await self.run(job)
        except Exception as error:
            logger.error("chunk failed", exc_info=error, extra={"session": [s.id for s in sessions]})
            for session in sessions:
                session.fail_chunk("rank_lost" if isinstance(error, RankLostError) else "failed")
            return
        self._metrics.batch.observe(len(sessions))
        self._calls[sessions[0].model].count(len(sessions), (ended - began) / 1e9)
        for session, chunk in zip(sessions, chunks):
            if isinstance(chunk, NotFiniteError):
                logger.error("chunk is not finite", exc_info=chunk, extra={"session": [session.id]})
                session.fail_chunk("not_finite")
                continue
            dropped = session.finish_chunk(chunk, len(sessions), began, ended)
            if chunk is not None and dropped is not None:
                self._count(session, chunk, dropped)

    def _marked(self, chunk: Chunk | NotFiniteError | None) -> Chunk | NotFiniteError | None:
        if self._watermark is None or not isinstance(chunk, Chunk):
            return chunk
        return replace(chunk, frames=self._watermark.on(chunk.frames))

    def _count(self, session: Schedulable, chunk: Chunk, dropped: int) -> None:
        self._metrics.chunk.labels(session.model).observe(chunk.timing.total)
        self._metrics.frames.labels(session.model).inc(len(chunk.frames))
        self._metrics.dropped.labels(session.model).inc(dropped)
        if chunk.index == 0:
            self._metrics.first_frame.observe(time.monotonic() - session.created)
