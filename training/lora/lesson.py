"""What an adapter is taught by one stream of its base."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pyrf.worlds.world import Frames


class Lesson(NamedTuple):
    """The base streams one caption; with the adapter, another caption shall show the changed clip.

    Attributes:
        streamed: the caption that the base is given.
        told: the caption that the adapter learns.
        change: makes of the stream's frames what `told` shall show; None where they stay.
    """

    streamed: str
    told: str
    change: Callable[[Frames], Frames] | None
