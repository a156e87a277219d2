"""When a session's next chunk is due, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyrf.serve.sessions import session as sessions
from pyrf.serve.sessions.chunks import SessionOptions
from pyrf.serve.sessions.session import Session
from pyrf.streaming.chunk import Chunk, Timing

LEAD_S = 0.5


def chunk(count: int) -> Chunk:
    return Chunk(np.zeros((count, 16, 16, 3), np.uint8), 0, "a red circle", Timing(0, 0, 0, 0, 0.1))


def make(session: Session, count: int) -> None:
    session.start_chunk()
    session.finish_chunk(chunk(count), 1, 0, 0)


def begin(monkeypatch: pytest.MonkeyPatch, fps: float) -> tuple[Session, Any]:
    """A real-time session of a stub, and its clock, whose `now` may be set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(sessions, "time", SimpleNamespace(monotonic=lambda: clock.now))
    options = SessionOptions(
        seed=0,
        height=16,
        width=16,
        fps=fps,
        pace="realtime",
        grace_s=30,
        lead_s=LEAD_S,
        buffer_chunks=2,
        pause_s=300,
    )
    stream: Any = SimpleNamespace()
    return Session(
        "id", "token", stream, options, changed=lambda: None, on_end=lambda session, reason: None
    ), clock


@pytest.mark.parametrize("fps", [12.5, 16.0, 24000 / 1001, 29.97])
def test_a_chunk_lasts_as_long_as_its_frames(monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    """Also at a rate that is not whole, where a rounded one would drift."""

    async def run() -> None:
        session, clock = begin(monkeypatch, fps)
        make(session, 9)  # before anyone looks
        session.attach("test")
        played_out = clock.now + 9 / fps
        assert session.deadline == pytest.approx(played_out)
        for _ in range(20):
            make(session, 12)
            played_out += 12 / fps
            assert session.deadline == pytest.approx(played_out)
            assert session.ready_at() == pytest.approx(max(clock.now, played_out - LEAD_S))
        clock.now = played_out + 7  # the viewer ran dry, and starts anew from here
        make(session, 12)
        assert session.deadline == pytest.approx(clock.now + 12 / fps)
        session.end("closed")

    asyncio.run(run())


def test_a_pause_that_is_over_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it was paused, only the pause under way has an end."""

    async def run() -> None:
        session, _ = begin(monkeypatch, 16.0)
        timers = asyncio.get_running_loop()
        waiting: list[asyncio.TimerHandle] = []

        def call_later(seconds: float, end: Any, reason: str) -> asyncio.TimerHandle:
            waiting.append(timers.call_at(timers.time() + 3600, end, reason))
            return waiting[-1]

        loop = SimpleNamespace(call_later=call_later)
        monkeypatch.setattr(sessions, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
        session.attach("test")
        for _ in range(3):
            session.pause()
            session.pause()
            session.resume()
        assert len(waiting) == 3
        assert all(timer.cancelled() for timer in waiting)
        session.pause()
        assert [timer.cancelled() for timer in waiting] == [True, True, True, False]
        session.end("closed")
        assert all(timer.cancelled() for timer in waiting)

    asyncio.run(run())
