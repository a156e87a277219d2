"""The world of a recipe: its name, or a mapping of its name and settings."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter

from pyrf.settings import known_fields
from pyrf.worlds.choice import world_type
from pyrf.worlds.world import World


def _read(given: Any) -> Any:
    if is_dataclass(given):  # a world, made already
        return given
    settings = {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, dict) else {}
    if not isinstance(name := settings.pop("name", None), str):
        raise ValueError(f"give the name of a world, or a mapping with its name and settings, got {given!r}")
    kind = world_type(name)
    checked: Any = Annotated[kind, BeforeValidator(known_fields(kind))]
    return TypeAdapter(checked).validate_python(settings)


def _write(world: Any) -> dict[str, Any]:
    return {"name": world.name, **asdict(world)}


RecipeWorld = Annotated[World, PlainValidator(_read), PlainSerializer(_write)]
"""`shapes`, or `{name: shapes, motions: [left, right]}`."""
