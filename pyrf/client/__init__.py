"""A client of `pyrf serve`: sessions as iterators of frames, async and sync. Needs the `client` extra."""

from pyrf.extras import needs

with needs("client", "the client"):
    from pyrf.client.asynchronous import AsyncClient, AsyncSession, Frame, RefusedError, SessionLostError
    from pyrf.client.synchronous import Client, Session

__all__ = ["AsyncClient", "AsyncSession", "Client", "Frame", "RefusedError", "Session", "SessionLostError"]
