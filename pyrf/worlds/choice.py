"""The worlds by their names."""

from __future__ import annotations

from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.valley.world import Valley
from pyrf.worlds.world import World

WORLDS: dict[str, type[World]] = {"shapes": ShapesWorld, "valley": Valley}


def world_type(name: str) -> type[World]:
    """The class of a world.

    Raises:
        ValueError: when no world has this name.
    """
    if name not in WORLDS:
        raise ValueError(f"no world {name!r}; there are {', '.join(WORLDS)}")
    return WORLDS[name]
