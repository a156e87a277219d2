"""A track's frames come when they are due, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.transports import track
from pyrf.streaming.chunk import Chunk, Timing


class Clock:
    """The time of an event loop that nothing takes but sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class Always:
    """A viewer for whom there always is a next chunk."""

    takes_frames = True

    def messages(self) -> list[Any]:
        return []

    async def next(self) -> MadeChunk:
        frames = np.zeros((12, 16, 16, 3), np.uint8)
        return MadeChunk(Chunk(frames, 0, "a red circle", Timing(0, 0, 0, 0, 0.5)), 0, 0, 0.0)


@pytest.mark.parametrize("fps", [12.5, 16.0, 24000 / 1001, 29.97])
def test_a_frame_rate_need_not_be_whole(monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    clock = Clock()
    monkeypatch.setattr(track, "asyncio", SimpleNamespace(get_running_loop=lambda: clock, sleep=clock.sleep))
    options = SimpleNamespace(fps=fps)
    session = SimpleNamespace(options=options, frames_dropped=0, attach=lambda kind: Always())

    async def play() -> list[tuple[float, float]]:
        playing = track.SessionTrack(session, lambda message: None, lambda: None)  # type: ignore[arg-type]
        found = []
        for _ in range(100):
            frame = await playing.recv()
            assert frame.pts is not None
            assert frame.time_base is not None
            found.append((float(frame.pts * frame.time_base), clock.now - 1000))
        return found

    for i, (told, shown) in enumerate(asyncio.run(play())):
        assert told == pytest.approx(i / fps, abs=2 / track.CLOCK_RATE)
        assert shown == pytest.approx(i / fps, abs=1e-6)
