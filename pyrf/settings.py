"""The base of all that a recipe says: unknown keys are refused, with the key that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """Settings from YAML."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        _check_keys(values, list(cls.model_fields))
        return values


def known_fields(kind: type) -> Callable[[Any], Any]:
    """A check for pydantic's `BeforeValidator`: a mapping has no key that is not a field of a dataclass."""
    known = [field.name for field in fields(kind)]

    def check(values: Any) -> Any:
        _check_keys(values, known)
        return values

    return check


def _check_keys(values: Any, known: list[str]) -> None:
    for key in values if isinstance(values, dict) else ():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            message = f"unknown key {key!r}; {hint}"
            raise PydanticCustomError("unknown_key", "{message}", {"message": message})


def first_problem(error: ValidationError) -> str:
    """Where settings are wrong first, and how, in a line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    told = first["type"] in ("unknown_key", "value_error")  # our own messages, which say what was given
    given = "" if told else f", got {first['input']!r}"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{given}".removeprefix(": ")
