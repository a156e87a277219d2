"""What a file says of how its video was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrf import __version__
from pyrf.config import StartKind
from pyrf.moments import format_time
from pyrf.streaming.mix import GivenPrompt, as_json, as_mix
from pyrf.streaming.model import StreamModel
from pyrf.streaming.prompts import PromptTimes, change_as_json
from pyrf.streaming.timeline import place, switches_of


def clip_metadata(
    model: StreamModel,
    prompt: GivenPrompt,
    seed: int,
    timeline: PromptTimes,
    start: StartKind | None,
    *,
    name: str,
    student: str | None,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """The metadata of one clip: JSON values, of which those that say nothing are left out.

    Args:
        prompt, seed, timeline, start: as for `StreamingPipeline.metadata`.
        name, student: of the model and of the weights in place of its own, for others to read.
        asked: how it was asked to stream.
    """
    continues = start == "still"
    placed = place(model, switches_of(timeline), continues=continues)
    later = {
        format_time(model.start_of_chunk(chunk, continues=continues) / model.fps): change_as_json(one)
        for chunk, one in sorted(placed.items())
    }
    made: dict[str, Any] = {
        "prompt": as_json(as_mix(prompt)),
        "seed": seed,
        "model": name,
        "pyrf": __version__,
    }
    if later:
        made["timeline"] = later
    if continues:
        made["continues"] = True
    elif start is not None:
        made["start"] = start
    if student is not None:
        made["student"] = student
    if acting := {adapter: strength for adapter, strength in model.adapters.strengths.items() if strength}:
        made["adapters"] = acting
    if asked:
        made["stream"] = dict(asked)
    return made
