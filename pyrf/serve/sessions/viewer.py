"""A viewer: one connection's view of a session, until the session ends or another viewer takes it over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pyrf.protocol import ClosingMessage, EndReason, Message
from pyrf.serve.sessions.chunks import MadeChunk

FAREWELL_S = 5.0
"""Seconds that a viewer has to take what is left when its session ends."""
MAX_MESSAGES = 32
"""Messages that wait for a viewer."""


@dataclass(frozen=True)
class SessionEnd:
    """What an end means to a viewer.

    Attributes:
        message: for people.
        shows_rest: whether the viewer still gets the frames that are finished.
    """

    message: str
    shows_rest: bool


ENDS: dict[EndReason, SessionEnd] = {
    "closed": SessionEnd("the session was closed", False),
    "expired": SessionEnd("the session outlived its grace period without a viewer", False),
    "max_length": SessionEnd("the session reached the server's longest length", True),
    "shutdown": SessionEnd("the server shuts down", True),
    "failed": SessionEnd("the session failed; the server's log says why", True),
    "idle": SessionEnd("the session was paused for too long", False),
    "not_finite": SessionEnd("the model's values became infinite or not a number; begin a new session", True),
    "rank_lost": SessionEnd(
        "a process that shares the work of this session has ended or hangs; begin a new session", True
    ),
    "refused": SessionEnd("the server refuses to show this; begin a session with another prompt", False),
    "revoked": SessionEnd("the key of this session was revoked; ask for another", False),
    "quota": SessionEnd("the key of this session has shown all its video of today; come back tomorrow", True),
    "replaced": SessionEnd("another viewer took the session over", False),
}


class Viewer:
    """One connection's view of a session. Lives on the event loop.

    Args:
        kind: how frames leave the server, for the log, as "websocket".
        take: gives the oldest chunk that waits in the session, if there is one.

    Attributes:
        ended: set once the connection is to be closed.
        ending: why.
    """

    def __init__(self, kind: str, take: Callable[[], MadeChunk | None]) -> None:
        self.kind = kind
        self.ended = asyncio.Event()
        self.ending: EndReason | None = None
        self._take = take
        self._wake = asyncio.Event()
        self._messages: deque[Message] = deque(maxlen=MAX_MESSAGES)

    @property
    def takes_frames(self) -> bool:
        """Whether frames go to it: as long as it has not ended, and the rest of them after some ends."""
        return self.ending is None or ENDS[self.ending].shows_rest

    async def next(self) -> MadeChunk | Message | None:
        """What to send next; None when the connection is to be closed, `ending` says why."""
        while True:
            if self._messages:
                return self._messages.popleft()
            if self.takes_frames:
                made = self._take()
                if made is not None:
                    return made
            if self.ending is not None:
                return None
            self._wake.clear()
            await self._wake.wait()

    def messages(self) -> list[Message]:
        """The messages that wait, without waiting for one."""
        waiting = list(self._messages)
        self._messages.clear()
        return waiting

    def announce(self, message: Message) -> None:
        """Queue a message before all chunks; of too many the oldest are dropped."""
        self._messages.append(message)
        self._wake.set()

    def wake(self) -> None:
        """A chunk may be waiting."""
        self._wake.set()

    def end(self, reason: EndReason) -> None:
        """Close the connection, once it has what is still to be sent. Of several reasons the first counts."""
        self.ending = self.ending or reason
        self.ended.set()
        self._wake.set()

    def closing_message(self) -> ClosingMessage:
        """The last message of the connection."""
        reason = self.ending or "closed"
        return ClosingMessage(reason=reason, message=ENDS[reason].message)
