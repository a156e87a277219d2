"""Where a stream's prompts come from: whoever assigns them, or a timeline."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

Prompt = str | list[str] | tuple[str, ...]
"""One prompt, or one for each clip."""

PromptTimes = Mapping[int, Prompt] | Mapping[str, Prompt] | Mapping[int | str, Prompt]
"""Prompts by when they begin: the index of a chunk, or a time as `pyrf.moments` reads it."""


def as_prompts(prompt: Prompt) -> tuple[str, ...]:
    """One prompt, or a list of them, as a tuple; the items are left to `StreamModel.check_prompt`.

    Raises:
        ValueError: when it is neither, or the list is empty.
    """
    if isinstance(prompt, str):
        return (prompt,)
    if not isinstance(prompt, list | tuple):
        raise ValueError(f"prompt must be a string or a list of strings, got {type(prompt).__name__}")
    if not prompt:
        raise ValueError("the list of prompts is empty; give at least one")
    return tuple(prompt)


@dataclass(frozen=True)
class PromptChange:
    """What a stream shows from a chunk on.

    Attributes:
        prompts: one for each clip.
        recache: whether the window's past chunks are run again under them.
    """

    prompts: tuple[str, ...]
    recache: bool = False


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

    def __init__(self, first: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._newest = PromptChange(first)
        self._taken = False

    @property
    def newest(self) -> tuple[str, ...]:
        """The prompts in force, or those that will be at the next chunk."""
        with self._lock:
            return self._newest.prompts

    def after_fork(self) -> None:
        """Go on in the child of a fork, where no thread holds the lock."""
        self._lock = threading.Lock()

    def assign(self, change: PromptChange) -> None:
        """Change the prompts at the next chunk; of several changes before it the last one counts."""
        with self._lock:
            self._newest, self._taken = change, False

    def at(self, chunk: int) -> PromptChange | None:
        with self._lock:
            taken, self._taken = self._taken, True
            return None if taken else self._newest


class Timeline(Latest):
    """Prompts that begin at given chunks; one that is assigned holds until the next of them.

    Args:
        first: the prompts of chunk 0.
        later: the prompts that begin at other chunks.
    """

    def __init__(self, first: tuple[str, ...], later: Mapping[int, tuple[str, ...]]) -> None:
        super().__init__(first)
        self._later = dict(later)

    def at(self, chunk: int) -> PromptChange | None:
        if chunk in self._later:
            self.assign(PromptChange(self._later[chunk]))
        return super().at(chunk)
