"""Prompts and changes whose texts are written out before a stream sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from pyrf.streaming.change import Change, Prompt
from pyrf.streaming.mix import GivenPrompt, is_one
from pyrf.streaming.timeline import Switch

Expand = Callable[[str], str]
"""Makes a longer prompt of a short one, such as a `pyrf.PromptExpander`."""


def expand_prompt(expand: Expand | None, prompt: Prompt) -> Prompt:
    """A prompt, or each of a list of them, written out; blends stay as they are."""
    if expand is None:
        return prompt
    if isinstance(prompt, str):
        return expand(prompt)
    if is_one(prompt) or not isinstance(prompt, list | tuple):
        return prompt
    given = cast(Sequence[GivenPrompt], prompt)
    return [expand(one) if isinstance(one, str) else one for one in given]


def expand_switches(expand: Expand | None, switches: list[Switch]) -> list[Switch]:
    """The same of later changes."""
    return [replace(one, change=_expand_change(expand, one.change)) for one in switches]


def _expand_change(expand: Expand | None, change: Change) -> Change:
    if change.prompt is None:
        return change
    return replace(change, prompt=expand_prompt(expand, change.prompt))
