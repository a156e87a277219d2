"""A client of `pyrf serve`: sessions as iterators of frames, async and sync. Needs the `client` extra."""

try:
    from pyrf.client.asynchronous import AsyncClient, AsyncSession, Frame, RefusedError, SessionLostError
    from pyrf.client.synchronous import Client, Session
except ModuleNotFoundError as error:
    raise ValueError(f"the client needs {error.name}: pip install 'pyrf[client]'") from error

__all__ = ["AsyncClient", "AsyncSession", "Client", "Frame", "RefusedError", "Session", "SessionLostError"]
