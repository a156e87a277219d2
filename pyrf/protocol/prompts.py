"""Prompts on the wire: a text, or texts with weights; and the changes of a clip."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from pyrf.config import MAX_OVER_S, MAX_TEXTS
from pyrf.protocol.terms import Request

MAX_CHANGES = 256
"""Of a clip."""

Weight = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


def _kind(prompt: object) -> str | None:
    return "text" if isinstance(prompt, str) else "weights" if isinstance(prompt, dict) else None


WirePrompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[dict[str, Weight], Field(min_length=1, max_length=MAX_TEXTS), Tag("weights")],
    Discriminator(
        _kind,
        custom_error_type="prompt_type",
        custom_error_message="Input should be a valid string, or an object of weights by text",
    ),
    Field(description="A text, or an object of weights by text, which are blended."),
]
Over = Annotated[
    float,
    Field(
        ge=0,
        le=MAX_OVER_S,
        allow_inf_nan=False,
        description="Seconds in which the prompt takes the place of the one before, a step per chunk.",
    ),
]


class TimelineEntry(Request):
    """A later prompt of a clip."""

    at: str | Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)] = Field(
        description="When it begins: seconds as a number or text, or a text [hh:]mm:ss."
    )
    prompt: WirePrompt
    over: Over = 0.0
    recache: bool = Field(False, description="Re-run the window too, once the prompt is wholly in force.")
