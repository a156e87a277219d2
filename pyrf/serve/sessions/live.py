"""The live sessions of a server: found by their ids and by what opens them, until they end."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Collection, Iterator

from pyrf.protocol import State
from pyrf.serve.errors import ServeError
from pyrf.serve.sessions.session import Session

STATES: tuple[State, ...] = ("running", "paused", "detached")
"""Of a session that is live."""


class LiveSessions(Collection[Session]):
    """The live sessions, the oldest first. Belongs to the event loop.

    Args:
        longest_s: seconds that a session lives at most.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._sessions: dict[str, Session] = {}
        self._ages: dict[str, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"<LiveSessions: {len(self)}>"

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Of all that are live now, whatever ends meanwhile."""
        return iter(list(self._sessions.values()))

    def __contains__(self, session: object) -> bool:
        return isinstance(session, Session) and self.get(session.id) is session

    def add(self, session: Session) -> None:
        """One begins."""
        self._sessions[session.id] = session
        loop = asyncio.get_running_loop()
        self._ages[session.id] = loop.call_later(self._longest_s, session.end, "max_length")

    def remove(self, session: Session) -> None:
        """One has ended."""
        del self._sessions[session.id]
        self._ages.pop(session.id).cancel()

    def get(self, id: str) -> Session | None:
        """The session of this id, for whoever needs nothing to open it."""
        return self._sessions.get(id)

    def find(self, id: str, token: str | None) -> Session:
        """The session of this id, for who holds its token.

        Raises:
            ServeError: 404, whether it is the session or the token that is wrong.
        """
        session = self.get(id)
        return _opened(session, "" if session is None else session.token, token or "")

    def find_watched(self, id: str, key: str) -> Session:
        """The session of this id, for who holds the key to watch it.

        Raises:
            ServeError: 404, whether it is the session or the key that is wrong.
        """
        session = self.get(id)
        return _opened(session, "" if session is None else session.watch_key, key)

    def end(self, id: str) -> None:
        """End a session of whomever.

        Raises:
            ServeError: 404 when there is no such session.
        """
        session = self.get(id)
        if session is None:
            raise ServeError(404, "no_session", "there is no such session; it may have ended already")
        session.end("closed")

    def count(self, model: str) -> dict[State, int]:
        """Sessions of a model by state."""
        counts = Counter(session.state for session in self if session.model == model)
        return {state: counts[state] for state in STATES}


def no_session() -> ServeError:
    """What is said of a session that is not there, and of a wrong token."""
    return ServeError(404, "no_session", "there is no such session, or the token is not its own")


def _opened(session: Session | None, secret: str, given: str) -> Session:
    right = secrets.compare_digest(given.encode(), secret.encode())
    if session is None or not right:
        raise no_session()
    return session
