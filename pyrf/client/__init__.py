"""A client of `pyrf serve`: sessions as iterators of frames, async and sync. Needs the `serve` extra."""

from pyrf.serve import require_extra

require_extra()

from pyrf.client.asynchronous import (  # noqa: E402
    AsyncClient,
    AsyncSession,
    Frame,
    RefusedError,
    SessionLostError,
)
from pyrf.client.synchronous import Client, Session  # noqa: E402

__all__ = ["AsyncClient", "AsyncSession", "Client", "Frame", "RefusedError", "Session", "SessionLostError"]
