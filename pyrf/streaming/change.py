"""A change in a stream: what is asked for, and when it will be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pyrf.bundle.adapter_file import check_strength
from pyrf.checks import is_number
from pyrf.config import MAX_ADAPTERS, MAX_OVER_S
from pyrf.streaming.mix import GivenPrompt

Prompt = GivenPrompt | Sequence[GivenPrompt]
"""The prompt of all clips, or a list of one for each."""


@dataclass(frozen=True)
class Change:
    """What changes at a time of a timeline.

    Attributes:
        prompt: what is shown from there on; None where only adapters change.
        over: seconds in which the old prompt turns into it.
        recache: whether the window's past chunks are run again under it, once it is wholly in force.
        adapters: strengths by the adapters' names.

    Raises:
        ValueError: when nothing changes, or a number is not finite or out of range.
    """

    prompt: Prompt | None = None
    over: float = 0.0
    recache: bool = False
    adapters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_over(self.over)
        if not isinstance(self.recache, bool):
            raise ValueError(f"recache must be true or false, got {self.recache!r}")
        check_strengths(self.adapters)
        if self.prompt is None:
            if self.over or self.recache:
                raise ValueError("over and recache belong to a new prompt, and there is none; give one")
            if not self.adapters:
                raise ValueError("nothing changes; give a prompt, or strengths of adapters")


def check_over(over: object) -> None:
    """Refuse a length of a transition.

    Raises:
        ValueError: when it is no number of seconds from 0 to MAX_OVER_S.
    """
    if not is_number(over) or not 0 <= over <= MAX_OVER_S:
        raise ValueError(f"over must be a number of seconds from 0 to {MAX_OVER_S:g}, got {over!r}")


def check_strengths(adapters: object) -> None:
    """Refuse strengths of adapters.

    Raises:
        ValueError: when they are no mapping of at most MAX_ADAPTERS names to strengths.
    """
    if not isinstance(adapters, Mapping) or len(adapters) > MAX_ADAPTERS:
        raise ValueError(f"adapters must map up to {MAX_ADAPTERS} names to strengths, got {adapters!r:.80}")
    for name, strength in adapters.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of an adapter must be a text, got {name!r}")
        check_strength(name, strength)


class Times(Protocol):
    """When the chunks of a stream start; see `pyrf.streaming.times.ChunkTimes`."""

    @property
    def fps(self) -> float: ...

    @property
    def frames_in_chunk(self) -> int: ...

    def start_of_chunk(self, chunk: int, *, continues: bool = False) -> int: ...

    def chunk_of_frame(self, frame: float, *, continues: bool = False) -> int: ...


@dataclass(frozen=True)
class Scheduled:
    """When a new prompt will be seen, unless another one comes before.

    Attributes:
        chunk: the first chunk that shows it, or the first step towards it.
        at_s: when that chunk begins, in seconds of the stream.
        full_chunk, full_s: the same of the first chunk that shows it wholly.
    """

    chunk: int
    at_s: float
    full_chunk: int
    full_s: float


def steps_of(times: Times, over: float) -> int:
    """The chunks that a transition of `over` seconds takes: as many as cover them, and at least one."""
    # A millionth of a frame: 0.3 s are a little more than 9 frames of 30 per second.
    return max(1, math.ceil((over * times.fps - 1e-6) / times.frames_in_chunk))


def schedule(times: Times, chunk: int, over: float, *, continues: bool = False) -> Scheduled:
    """When a prompt will be seen that a chunk is the first to show.

    Args:
        over: seconds of its transition; at chunk 0 there is nothing to turn from.
        continues: whether the stream goes on from an image or a video.
    """
    full = chunk + steps_of(times, over) - 1 if chunk else chunk
    start, whole = (times.start_of_chunk(c, continues=continues) / times.fps for c in (chunk, full))
    return Scheduled(chunk, start, full, whole)
