"""Prompts that begin later in a stream: chunks or times, as they are given, become chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrf.checks import check_whole
from pyrf.moments import format_time, parse_time
from pyrf.printing import counted

if TYPE_CHECKING:
    from pyrf.streaming.model import StreamModel
    from pyrf.streaming.prompts import Prompt, PromptTimes


@dataclass(frozen=True)
class Switch:
    """A prompt and when it begins.

    Attributes:
        said: how it was given, for errors.
        start: a chunk (int), or seconds (float): then the first chunk that starts there or later.
        prompt: what is shown from there on.
    """

    said: str
    start: int | float
    prompt: Prompt


def switches_of(timeline: PromptTimes) -> list[Switch]:
    """The switches of a timeline whose keys are chunks, or times as `pyrf.moments` reads them.

    Raises:
        ValueError: when it is no mapping, or a key is neither.
    """
    if not isinstance(timeline, Mapping):
        raise ValueError(f"timeline must map chunks or times to prompts, got {type(timeline).__name__}")
    switches = []
    for key, prompt in timeline.items():
        said = f"timeline[{key!r}]"
        if isinstance(key, str):
            try:
                start: int | float = parse_time(key)
            except ValueError as error:
                raise ValueError(f"{said}: {error}") from None
        else:
            start = check_whole("a chunk of the timeline", key, least=0)
        switches.append(Switch(said, start, prompt))
    return switches


def place(
    model: StreamModel, switches: Iterable[Switch], *, continues: bool, num_frames: int | None = None
) -> dict[int, Prompt]:
    """The chunks at which prompts begin.

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
            chunk = model.chunk_of_frame(chunk * model.fps - 1e-6, continues=continues)
        if num_frames is not None:
            _check_end(model, switch, chunk, num_frames, continues=continues)
        if chunk == 0:
            raise ValueError(
                f"{switch.said} begins with the video, as its first prompt does, which would be lost; "
                "give that prompt as the first one"
            )
        if chunk in placed:
            start = model.start_of_chunk(chunk, continues=continues) / model.fps
            after = model.start_of_chunk(chunk + 1, continues=continues) / model.fps
            raise ValueError(
                f"{placed[chunk].said} ({placed[chunk].prompt!r}) and {switch.said} ({switch.prompt!r}) "
                f"both begin with the chunk at {_seconds(start)}, so one would be lost; "
                f"leave one out, or let it begin at the next chunk, at {_seconds(after)}"
            )
        placed[chunk] = switch
    return {chunk: switch.prompt for chunk, switch in placed.items()}


def _check_end(model: StreamModel, switch: Switch, chunk: int, num_frames: int, *, continues: bool) -> None:
    length = num_frames / model.fps
    if isinstance(switch.start, float) and switch.start >= length:
        raise ValueError(f"{switch.said} lies outside the video, which lasts {_seconds(length)}")
    last = model.chunk_of_frame(num_frames, continues=continues) - 1
    if chunk > last:
        latest = model.start_of_chunk(last, continues=continues) / model.fps
        raise ValueError(
            f"{switch.said} comes too late: a prompt changes where a chunk starts, in this video last at "
            f"{_seconds(latest)} (chunk {last})"
        )


def _seconds(value: float) -> str:
    """As a person may type it back: never later than it is."""
    told = math.floor(1e3 * value + 1e-6) / 1e3
    clock = f", which is {format_time(told)}" if told >= 60 else ""
    return counted(told, "second") + clock
