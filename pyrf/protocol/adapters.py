"""Adapters on the wire: their strengths, asked for and told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pyrf.config import MAX_ADAPTERS, MAX_STRENGTH
from pyrf.protocol.terms import Reply, Request

Strengths = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)],
    ],
    Field(max_length=MAX_ADAPTERS, description="By the adapter's name: 0 is off, 1 what it was trained for."),
]


class AdaptersRequest(Request):
    """Body of `POST /v1/sessions/{id}/adapters`; adapters that are not named keep their strengths."""

    strengths: Strengths


class AdaptersReply(Reply):
    """Strengths of all adapters, in force from `chunk` on, unless a later change comes before."""

    strengths: dict[str, float]
    chunk: int


class ServedAdapter(Reply):
    """An adapter of the served model, and its strength now."""

    name: str
    strength: float
