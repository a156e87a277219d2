"""Those who only watch a session, beside its viewer: as many as there are, and none of them holds it up."""

from __future__ import annotations

from collections import deque

from pyrf.protocol import EndReason
from pyrf.serve.sessions.chunks import MadeChunk
from pyrf.serve.sessions.viewer import Viewer


class Watchers:
    """The watchers of a session. Each has chunks of its own that wait, and of too many loses the oldest.

    Args:
        buffer_chunks: that wait for a watcher.
    """

    def __init__(self, buffer_chunks: int) -> None:
        self._buffer_chunks = buffer_chunks
        self._waiting: dict[Viewer, deque[MadeChunk]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, kind: str) -> Viewer:
        """A newcomer, who sees what is made from now on."""
        waiting: deque[MadeChunk] = deque(maxlen=self._buffer_chunks)
        watcher = Viewer(kind, lambda: waiting.popleft() if waiting else None)
        self._waiting[watcher] = waiting
        return watcher

    def remove(self, watcher: Viewer) -> bool:
        """One has gone; whether it was still there."""
        return self._waiting.pop(watcher, None) is not None

    def catch_up(self, watcher: Viewer) -> None:
        """One begins to show what it gets: what has waited until now is late, but for the newest chunk."""
        waiting = self._waiting.get(watcher, deque())
        while len(waiting) > 1:
            waiting.popleft()

    def deliver(self, made: MadeChunk) -> None:
        """A chunk for all of them."""
        for watcher, waiting in self._waiting.items():
            waiting.append(made)
            watcher.wake()

    def end(self, reason: EndReason) -> None:
        """The session has ended."""
        for watcher in self._waiting:
            watcher.end(reason)
