"""Changes that come later in a stream: chunks or times, as they are given, become chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyrf.checks import check_whole
from pyrf.moments import format_time, parse_time
from pyrf.printing import counted
from pyrf.streaming.change import Change, Times
from pyrf.streaming.prompts import PromptTimes


@dataclass(frozen=True)
class Switch:
    """A change and when it begins.

    Attributes:
        said: how it was given, for errors.
        start: a chunk (int), or seconds (float): then the first chunk that starts there or later.
        change: what is other from there on.
    """

    said: str
    start: int | float
    change: Change


def switches_of(timeline: PromptTimes) -> list[Switch]:
    """The switches of a timeline whose keys are chunks, or times as `pyrf.moments` reads them.

    Raises:
        ValueError: when it is no mapping, or a key is neither.
    """
    if not isinstance(timeline, Mapping):
        raise ValueError(f"timeline must map chunks or times to prompts, got {type(timeline).__name__}")
    switches = []
    for key, given in timeline.items():
        said = f"timeline[{key!r}]"
        if isinstance(key, str):
            try:
                start: int | float = parse_time(key)
            except ValueError as error:
                raise ValueError(f"{said}: {error}") from None
        else:
            start = check_whole("a chunk of the timeline", key, least=0)
        change = given if isinstance(given, Change) else Change(given)
        switches.append(Switch(said, start, change))
    return switches


def place(
    times: Times, switches: Iterable[Switch], *, continues: bool, num_frames: int | None = None
) -> dict[int, Change]:
    """The chunks at which changes begin.

    Args:
        continues: whether the stream goes on from an image or a video.
        num_frames: of the whole video; None where it has no end.

    Raises:
        ValueError: when one comes after the last chunk has started, or with the first prompt, or when two
            would begin together: none is lost without a word.
    """
    placed: dict[int, Switch] = {}
    for switch in switches:
        chunk = switch.start
        if isinstance(chunk, float):
            # A millionth of a frame: 0.3 s are a little more than 9 frames of 30 per second.
            chunk = times.chunk_of_frame(chunk * times.fps - 1e-6, continues=continues)
        if num_frames is not None:
            _check_end(times, switch, chunk, num_frames, continues=continues)
        if chunk == 0 and switch.change.prompt is not None:
            raise ValueError(
                f"{switch.said} begins with the video, as its first prompt does, which would be lost; "
                "give that prompt as the first one"
            )
        if chunk in placed:
            start = times.start_of_chunk(chunk, continues=continues) / times.fps
            after = times.start_of_chunk(chunk + 1, continues=continues) / times.fps
            raise ValueError(
                f"{placed[chunk].said} ({_told(placed[chunk])}) and {switch.said} ({_told(switch)}) "
                f"both begin with the chunk at {_seconds(start)}, so one would be lost; "
                f"leave one out, or let it begin at the next chunk, at {_seconds(after)}"
            )
        placed[chunk] = switch
    return {chunk: switch.change for chunk, switch in placed.items()}


def _check_end(times: Times, switch: Switch, chunk: int, num_frames: int, *, continues: bool) -> None:
    length = num_frames / times.fps
    if isinstance(switch.start, float) and switch.start >= length:
        raise ValueError(f"{switch.said} lies outside the video, which lasts {_seconds(length)}")
    last = times.chunk_of_frame(num_frames, continues=continues) - 1
    if chunk > last:
        latest = times.start_of_chunk(last, continues=continues) / times.fps
        raise ValueError(
            f"{switch.said} comes too late: a prompt changes where a chunk starts, in this video last at "
            f"{_seconds(latest)} (chunk {last})"
        )


def _told(switch: Switch) -> str:
    return "adapters" if switch.change.prompt is None else repr(switch.change.prompt)


def _seconds(value: float) -> str:
    """As a person may type it back: never later than it is."""
    told = math.floor(1e3 * value + 1e-6) / 1e3
    clock = f", which is {format_time(told)}" if told >= 60 else ""
    return counted(told, "second") + clock
