"""What whoever looks after a server sees of it."""

from __future__ import annotations

from pydantic import Field

from pyrf.protocol.terms import Reply, State


class AdminSession(Reply):
    """A live session, of whomever it is. Neither its token nor its prompt is told."""

    id: str
    key: str | None = Field(description="Name of the API key that was shown for it, if one was needed.")
    address: str = Field(description="Of whoever began it, as quotas count it.")
    model: str
    state: State
    clip: bool = Field(description="Whether it is there for a clip.")
    age_s: float
    viewers: int = Field(description="Who takes its frames now, watchers included.")
    frames_made: int


class AdminSessions(Reply):
    """Reply to `GET /v1/admin/sessions`, to `drain` and to `undrain`: the oldest session first."""

    draining: bool = Field(description="Whether the server takes no new sessions.")
    sessions: list[AdminSession]
