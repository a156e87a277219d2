"""What one address may hold of a server, so that nobody takes every seat."""

from __future__ import annotations

from collections.abc import Iterable

from pyrf.serve.sessions.session import Session
from pyrf.serve.settings import ServeSettings

BUSY_RETRY_S = 5.0
"""What whoever finds no room, or holds its share, is told to wait; nobody knows when a session will end."""


def over_quota(
    sessions: Iterable[Session], address: str, is_clip: bool, settings: ServeSettings
) -> str | None:
    """Why an address gets no further session; None when it does.

    It is counted anew each time: there are few sessions, and nothing is kept of an address that has none.

    Args:
        sessions: that are live.
        address: as `client_address` tells it.
        is_clip: whether the session is for a clip.
    """
    own = [session for session in sessions if session.address == address]
    if len(own) >= settings.sessions_per_address:
        return f"one address may hold {settings.sessions_per_address} sessions and clips; end one first"
    clips = sum(session.options.is_clip for session in own)
    if is_clip and clips >= settings.max_clips_per_address:
        return f"one address may have {settings.max_clips_per_address} clips at a time; wait for one"
    detached = sum(session.state == "detached" for session in own)
    if not is_clip and detached >= settings.max_detached_per_address:
        return (
            f"one address may hold {settings.max_detached_per_address} sessions without a viewer; "
            "attach one or end it first"
        )
    return None
