"""The end of all sessions, when the server shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from pyrf.serve.sessions.session import Session
from pyrf.serve.sessions.viewer import FAREWELL_S


async def end_all(sessions: Collection[Session], seconds: float) -> None:
    """End sessions, and give those who see them some time to take what is left.

    Args:
        seconds: at most, where that is less than `FAREWELL_S`.
    """
    for session in sessions:
        session.end("shutdown")
    farewells = [asyncio.create_task(session.unwatched.wait()) for session in sessions]
    if farewells:
        await asyncio.wait(farewells, timeout=min(FAREWELL_S, seconds))
    for farewell in farewells:
        farewell.cancel()
