"""Slows down who tries tokens."""

from __future__ import annotations

from pyrf.serve.errors import ServeError
from pyrf.serve.sessions.rates import RateLimit

AT_ONCE = 20
"""Wrong tokens that an address may send at once."""
EVERY_S = 3.0
"""Seconds until it may send another one."""


class Guesses:
    """Wrong tokens by address, in bounded memory."""

    def __init__(self) -> None:
        self._limit = RateLimit(1 / EVERY_S, AT_ONCE)

    def check(self, address: str) -> None:
        """Refuse an address that has tried too many, before its next token is looked at.

        Raises:
            ServeError: 429.
        """
        if wait := self._limit.wait_of(address):
            message = f"too many wrong tokens came from your address; wait {wait:.1f} s"
            raise ServeError(429, "rate_limited", message, wait)

    def count(self, address: str) -> None:
        """A wrong token came from an address."""
        self._limit.wait_for(address)
