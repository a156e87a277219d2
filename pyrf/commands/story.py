"""What `pyrf generate` is to show over time: a prompt and its `--at`, or a story's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyrf import printing
from pyrf.commands.options import check_seconds
from pyrf.moments import parse_time, split_time
from pyrf.streaming.change import Change, check_over
from pyrf.streaming.mix import ClipPrompt
from pyrf.streaming.script import Script
from pyrf.streaming.timeline import Switch, place

if TYPE_CHECKING:
    from pyrf.streaming.times import ChunkTimes

DEFAULT_SECONDS = 5.0


@dataclass(frozen=True)
class Story:
    """What a video shows.

    Attributes:
        prompt: of the beginning.
        seed: of the noise.
        seconds: its length.
        switches: the later changes.
    """

    prompt: ClipPrompt
    seed: int
    seconds: float
    switches: list[Switch]


def told(
    prompt: str | None,
    at: list[str] | None,
    over: float | None,
    script: str | None,
    seed: int | None,
    seconds: float | None,
) -> Story:
    """The story that the options tell; `seed` and `seconds` go before those of a script.

    Raises:
        ValueError: when a script is given with a prompt, or neither, or either is wrong in itself.
    """
    if script is None:
        if prompt is None:
            raise ValueError("give a prompt, --script FILE or --prompts FILE")
        length = DEFAULT_SECONDS if seconds is None else seconds
        check_seconds(length)
        return Story(prompt, seed or 0, length, _switches(at, over or 0.0, length))
    if prompt is not None or at or over is not None:
        raise ValueError("--script has the prompts and their times; leave out PROMPT, --at and --over")
    story = Script.load(script)
    length = seconds or story.seconds or DEFAULT_SECONDS
    check_seconds(length)
    return Story(story.prompt, story.seed if seed is None else seed, length, list(story.all_switches))


def _switches(given: list[str] | None, over: float, end: float) -> list[Switch]:
    """`2.5:a blue square` -> Switch("--at 2.5", 2.5, Change("a blue square")).

    Raises:
        ValueError: when a text has another form, or the time does not come before the end.
    """
    check_over(over)
    switches = []
    for text in given or ():
        try:
            moment, prompt = split_time(text)
            start = parse_time(moment)
        except ValueError as error:
            raise ValueError(f"--at: {error}") from None
        if start >= end:
            length = printing.counted(end, "second")
            raise ValueError(f"--at {moment} lies outside the video, which lasts {length}")
        switches.append(Switch(f"--at {moment}", start, Change(prompt, over)))
    return switches


def times_of(model: str) -> ChunkTimes:
    """When the chunks of a model's streams start; its weights are not loaded."""
    from pyrf.bundle.bundle import load_bundle
    from pyrf.models.wan21 import LATENTS
    from pyrf.streaming.times import ChunkTimes

    bundle = load_bundle(model)
    return ChunkTimes(bundle.fps, bundle.stream_config.chunk_frames, LATENTS.temporal_stride)


def check_places(story: Story, times: ChunkTimes, *, continues: bool) -> dict[int, Change]:
    """The chunks of a story's changes.

    Raises:
        ValueError: when two begin together, or one comes after the last chunk has started.
    """
    num_frames = max(1, round(story.seconds * times.fps))
    return place(times, story.switches, continues=continues, num_frames=num_frames)
