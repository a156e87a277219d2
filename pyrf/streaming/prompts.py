"""Where a stream's prompts come from: whoever assigns them, or a timeline."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pyrf.streaming.change import Change
from pyrf.streaming.change import Prompt as Prompt
from pyrf.streaming.mix import ClipPrompt, as_json, as_mix, is_one

PromptTimes = (
    Mapping[int, Prompt | Change] | Mapping[str, Prompt | Change] | Mapping[int | str, Prompt | Change]
)
"""Prompts, or changes, by when they begin: the index of a chunk, or a time as `pyrf.moments` reads it."""


def as_prompts(prompt: Prompt) -> tuple[ClipPrompt, ...]:
    """One prompt, or a list of them, as a tuple; the texts are left to `StreamModel.check_prompt`.

    Raises:
        ValueError: when it is neither, the list is empty, or weights are wrong.
    """
    if is_one(prompt):
        return (as_mix(prompt),)
    if not isinstance(prompt, list | tuple):
        raise ValueError(
            f"prompt must be a string, (text, weight) pairs, or a list of these, got {type(prompt).__name__}"
        )
    if not prompt:
        raise ValueError("the list of prompts is empty; give at least one")
    return tuple(as_mix(item) for item in prompt)


def of_clip(change: Change, index: int) -> Change:
    """A change of all clips, as it is for one of them."""
    if change.prompt is None or is_one(change.prompt):
        return change
    return replace(change, prompt=as_prompts(change.prompt)[index])


def change_as_json(change: Change) -> Any:
    """A change as files hold it: the prompt, or an object where there is more to say."""
    prompt: ClipPrompt | None = None if change.prompt is None else as_mix(change.prompt)
    more = {"over": change.over, "recache": change.recache, "adapters": dict(change.adapters)}
    told = {name: value for name, value in more.items() if value}
    shown = None if prompt is None else as_json(prompt)
    return shown if not told else told if prompt is None else {"prompt": shown, **told}


@dataclass(frozen=True)
class PromptChange:
    """What a stream shows from a chunk on.

    Attributes:
        prompts: one for each clip.
        recache: whether the window's past chunks are run again under them.
        chunks: in how many chunks the old prompts turn into them.
    """

    prompts: tuple[ClipPrompt, ...]
    recache: bool = False
    chunks: int = 1


class PromptSource(Protocol):
    """Says when a stream's prompts change."""

    def at(self, chunk: int) -> PromptChange | None:
        """The change that takes effect at a chunk, if there is one; at chunk 0 there is.

        It is asked once per chunk, in the thread that computes it.
        """
        ...


class Latest:
    """The prompts that were assigned last, from any thread (a `PromptSource`).

    Args:
        first: the prompts of chunk 0.
    """

    def __init__(self, first: tuple[ClipPrompt, ...]) -> None:
        self._lock = threading.Lock()
        self._newest = PromptChange(first)
        self._taken = False
        self._next_chunk = 0

    @property
    def newest(self) -> tuple[ClipPrompt, ...]:
        """The prompts in force, or those that will be at the next chunk."""
        with self._lock:
            return self._newest.prompts

    @property
    def next_chunk(self) -> int:
        """The chunk that will be asked for next."""
        with self._lock:
            return self._next_chunk

    def after_fork(self) -> None:
        """Go on in the child of a fork, where no thread holds the lock."""
        self._lock = threading.Lock()

    def assign(self, change: PromptChange) -> int:
        """Change the prompts at the next chunk; of several changes before it the last one counts.

        Returns:
            That chunk.
        """
        with self._lock:
            self._newest, self._taken = change, False
            return self._next_chunk

    def at(self, chunk: int) -> PromptChange | None:
        with self._lock:
            self._next_chunk = chunk + 1
            taken, self._taken = self._taken, True
            return None if taken else self._newest


class Timeline(Latest):
    """Prompts that begin at given chunks; one that is assigned holds until the next of them.

    Args:
        first: the prompts of chunk 0.
        later: the changes at other chunks.
    """

    def __init__(self, first: tuple[ClipPrompt, ...], later: Mapping[int, PromptChange]) -> None:
        super().__init__(first)
        self._later = dict(later)

    def at(self, chunk: int) -> PromptChange | None:
        if chunk in self._later:
            self.assign(self._later[chunk])
        return super().at(chunk)
