"""How long calls of a model take, and how many sessions one may have when time is short."""

from __future__ import annotations

NEWEST = 0.3
"""Weight of the newest call in the mean."""
LONGER = 1.25
"""A call that takes no more than so many times as long as one of a single session costs nobody anything."""


class CallLengths:
    """Remembers how long calls of a model take, by their number of sessions.

    Who becomes ready waits for the call under way, and then for its own. So a call is to be short against the
    lead that viewers have, unless one of fewer sessions would be as long.

    Args:
        longest_s: seconds that a call may take.

    Attributes:
        chunk_s: seconds for a session's chunk, on average of the newest calls; 0 before the first.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._means: dict[int, float] = {}
        self.chunk_s = 0.0

    def count(self, sessions: int, seconds: float) -> None:
        """A call has ended."""
        mean = self._means.get(sessions, seconds)
        self._means[sessions] = mean + NEWEST * (seconds - mean)
        each = seconds / sessions
        self.chunk_s += (NEWEST if self.chunk_s else 1.0) * (each - self.chunk_s)

    def most(self, wanted: int) -> int:
        """The largest number of sessions up to `wanted` whose call is short; one that was never tried is."""
        allowed_s = max(self._longest_s, LONGER * self._means.get(1, 0.0))
        while wanted > 1 and self._means.get(wanted, 0.0) > allowed_s:
            wanted -= 1
        return wanted
