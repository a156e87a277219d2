"""The words that requests, replies and messages share, and what every one of them is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Pace = Literal["realtime", "max"]
FrameFormat = Literal["jpeg", "raw"]
State = Literal["running", "paused", "detached", "ended"]
OutputState = Literal["opening", "sending", "closing", "ended", "failed"]
EndReason = Literal[
    "closed",
    "expired",
    "max_length",
    "shutdown",
    "failed",
    "idle",
    "not_finite",
    "rank_lost",
    "refused",
    "revoked",
    "quota",
    "replaced",
]

# Why a stream ends -> the code its WebSocket is closed with.
CLOSE_CODES: dict[EndReason, int] = {
    "closed": 1000,
    "max_length": 1000,
    "shutdown": 1001,
    "failed": 1011,
    "not_finite": 4500,
    "rank_lost": 4501,
    "revoked": 4401,
    "refused": 4403,
    "quota": 4429,
    "expired": 4404,
    "idle": 4408,
    "replaced": 4409,
}
# The WebSocket is for a session that is not there, or its token is wrong.
NO_SESSION_CODE = 4404
# What a WebSocket asks for as its subprotocol; the server answers with this one alone.
SUBPROTOCOL = "pyrf.v1"
# A second subprotocol that is asked for: this, and the session's token.
TOKEN_SUBPROTOCOL = "pyrf.token."
# Of a clip's reply: a JSON list of sentences on the prompt or the size, in ASCII; absent without any.
WARNINGS_HEADER = "Pyrf-Warnings"
# The viewer sent too much at once.
TOO_LARGE_CODE = 1009


class Request(BaseModel):
    """What a client sends: a field that the server does not know is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Reply(BaseModel):
    """What the server sends: a field that the client does not know is ignored, so later servers may add some.

    Where a field is called something else on the wire, that name is its alias; in Python both are taken.
    """

    model_config = ConfigDict(
        extra="ignore",
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        hide_input_in_errors=True,  # it may hold a token
    )
