"""What each API key has used of its quotas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pyrf.serve.errors import ServeError
from pyrf.serve.keys.key import Key
from pyrf.serve.keys.ring import Keyring
from pyrf.serve.metrics import KeyFigures
from pyrf.serve.sessions.quotas import BUSY_RETRY_S

if TYPE_CHECKING:
    from pyrf.serve.sessions.session import Session


@dataclass
class _Used:
    """Of one key, since the server began.

    Attributes:
        started: sessions and clips.
        seconds: of video.
        day: of UTC; None before the first chunk.
        seconds_of_day: of video in that day.
    """

    started: int = 0
    seconds: float = 0.0
    day: datetime | None = None
    seconds_of_day: float = 0.0


class Accounts:
    """Counts what the sessions of keys use. Lives on the event loop, and begins at nothing with the server.

    Args:
        keyring: keys that it lists, and no others, are counted.
        now: the time, in UTC.
    """

    def __init__(self, keyring: Keyring, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._keyring, self._now = keyring, now
        self._used: dict[str, _Used] = {}

    def check(self, key: Key | None, sessions: Iterable[Session]) -> None:
        """Let a key have one more session; whoever showed none has no quota here.

        Args:
            sessions: that are live, of all keys.

        Raises:
            ServeError: 401 when it was revoked, 429 when a quota is used up.
        """
        if key is None:
            return
        newest = self._keyring.now(key)
        if newest is None:
            raise ServeError(401, "unauthorized", f"the key {key.name} was revoked; ask for another")
        own = sum(one.options.key is not None and one.options.key.sha256 == key.sha256 for one in sessions)
        if newest.sessions is not None and own >= newest.sessions:
            message = f"the key {key.name} may hold {newest.sessions} sessions and clips; end one first"
            raise ServeError(429, "quota", message, BUSY_RETRY_S)
        if self._is_used_up(newest):
            now = self._now()
            left_s = (_day_of(now) + timedelta(days=1) - now).total_seconds()
            message = f"the key {key.name} has shown its {newest.seconds_per_day:g} s of video today"
            raise ServeError(429, "quota", f"{message}; the next day of UTC brings more", left_s)

    def begin(self, key: Key | None) -> None:
        """Count a session or a clip."""
        if key is not None:
            self._of(key).started += 1

    def count(self, key: Key | None, seconds: float) -> bool:
        """Count seconds of video that a session shows; whether its key's day is used up by them."""
        newest = None if key is None else self._keyring.now(key)
        if newest is None:
            return False
        used, day = self._of(newest), _day_of(self._now())
        if used.day != day:
            used.day, used.seconds_of_day = day, 0.0
        used.seconds += seconds
        used.seconds_of_day += seconds
        return self._is_used_up(newest)

    def figures(self, sessions: Iterable[Session]) -> Iterator[KeyFigures]:
        """Of each key that may begin sessions; those of revoked ones are gone."""
        live = [one.options.key.sha256 for one in sessions if one.options.key is not None]
        for key in self._keyring.keys:
            if "sessions" in key.may:
                used = self._of(key)
                yield KeyFigures(key.name, live.count(key.sha256), used.started, used.seconds)

    def forget_revoked(self) -> None:
        """Keep nothing of keys that are no more."""
        known = {key.sha256 for key in self._keyring.keys}
        self._used = {hashed: used for hashed, used in self._used.items() if hashed in known}

    def _of(self, key: Key) -> _Used:
        return self._used.setdefault(key.sha256, _Used())

    def _is_used_up(self, key: Key) -> bool:
        used = self._of(key)
        is_today = used.day == _day_of(self._now())
        return key.seconds_per_day is not None and is_today and used.seconds_of_day >= key.seconds_per_day


def _day_of(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
