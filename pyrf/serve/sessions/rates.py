"""Rate limits: token buckets by key, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class RateLimit:
    """Lets `rate` events per second pass for each key, and `burst` of them at once.

    A bucket is kept as the moment at which it would be full again (the generic cell rate algorithm), so a
    key is one number, and a full bucket need not be kept at all.

    Args:
        rate: events per second.
        burst: events that may come at once; below 1 it counts as 1, as nothing would ever pass.
        clock: seconds, rising.
    """

    MAX_KEYS = 10_000

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._burst, self._clock = 1 / rate, max(1.0, burst), clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_for(self, key: str) -> float:
        """Take one event: 0 when it may pass, else the seconds to wait, and nothing is taken."""
        if wait := self.wait_of(key):
            return wait
        now = self._clock()
        self._full_at[key] = max(now, self._full_at.get(key, now)) + self._interval
        self._full_at.move_to_end(key)
        while self._full_at and (
            len(self._full_at) > self.MAX_KEYS or next(iter(self._full_at.values())) <= now
        ):
            self._full_at.popitem(last=False)
        return 0.0

    def wait_of(self, key: str) -> float:
        """The seconds until an event may pass, 0 for at once; nothing is taken."""
        now = self._clock()
        full_at = max(now, self._full_at.get(key, now)) + self._interval
        wait = full_at - now - self._burst * self._interval
        return wait if wait > 1e-9 else 0.0
