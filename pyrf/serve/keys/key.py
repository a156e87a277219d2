"""An API key: its name, what it may do, and how much of it. The key itself is never kept, only its hash."""

from __future__ import annotations

import hashlib
import secrets
from datetime import date
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pyrf.settings import Settings

Right = Literal["sessions", "metrics", "admin"]
"""To begin sessions and clips, to read `/metrics`, and to look after the server."""

PREFIX = "pyrf_"
"""What new keys begin with, so that a search for leaked ones finds them."""
SECRET_BYTES = 32
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}"
"""Of a key: it is a label of metrics, and stands in logs."""


class Key(Settings):
    """A key as the server knows it.

    Attributes:
        name: for people, logs and metrics.
        sha256: hash of the key, 64 hexadecimal digits.
        may: what it opens.
        sessions: that it may hold at a time, clips included; None for no quota of its own.
        seconds_per_day: of video that its sessions may show in a day of UTC; None for no quota.
        created: when it was made.
    """

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    may: Annotated[tuple[Right, ...], Field(min_length=1, max_length=3)] = ("sessions",)
    sessions: Annotated[int | None, Field(ge=1)] = None
    seconds_per_day: Annotated[float | None, Field(gt=0)] = None
    created: date | None = None


def new_secret() -> str:
    """A key that nobody guesses: 256 random bits. Its hash needs no salt and no slowness for that."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()
