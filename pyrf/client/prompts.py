"""Prompts and timelines as they are given to the client, made ready for the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrf.client.errors import BadArgumentError
from pyrf.streaming.change import Change
from pyrf.streaming.mix import GivenPrompt, as_json, as_mix


def wire_prompt(prompt: GivenPrompt) -> Any:
    """A prompt as the wire has it; what is none is left to the check of the request.

    Raises:
        BadArgumentError: when its weights are wrong.
    """
    if not isinstance(prompt, list | tuple | Mapping):
        return prompt
    try:
        return as_json(as_mix(prompt))
    except ValueError as error:
        raise BadArgumentError(str(error)) from error


def wire_timeline(timeline: Mapping[str, GivenPrompt | Change] | None) -> list[dict[str, Any]]:
    """The later prompts of a clip, by their times.

    Raises:
        BadArgumentError: when weights are wrong, or a change has no prompt, one per clip, or adapters.
    """
    entries = []
    for at, given in (timeline or {}).items():
        if not isinstance(given, Change):
            entries.append({"at": at, "prompt": wire_prompt(given)})
            continue
        if given.prompt is None or given.adapters:
            raise BadArgumentError(f"timeline[{at!r}]: a clip's timeline changes prompts, not adapters")
        prompt = wire_prompt(given.prompt)  # type: ignore[arg-type]  # a list of prompts is refused there
        entries.append({"at": at, "prompt": prompt, "over": float(given.over), "recache": given.recache})
    return entries
