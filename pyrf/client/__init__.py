"""A client of `pyrf serve`: sessions as iterators of frames, async and sync. Needs the `client` extra."""

from pyrf.extras import needs

with needs("client", "the client"):
    from pyrf.client.admin import Admin
    from pyrf.client.asynchronous import AsyncClient
    from pyrf.client.errors import (
        BadArgumentError,
        BadReplyError,
        ClientError,
        RefusedError,
        SessionLostError,
        UnreachableError,
    )
    from pyrf.client.frames import Frame
    from pyrf.client.session import AsyncSession
    from pyrf.client.synchronous import Client, Session

__all__ = [
    "Admin",
    "AsyncClient",
    "AsyncSession",
    "BadArgumentError",
    "BadReplyError",
    "Client",
    "ClientError",
    "Frame",
    "RefusedError",
    "Session",
    "SessionLostError",
    "UnreachableError",
]
