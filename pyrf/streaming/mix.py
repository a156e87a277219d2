"""A prompt of one clip: a text, or several texts with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TypeGuard

from pyrf.config import MAX_TEXTS

Mix = tuple[tuple[str, float], ...]
"""Texts with weights above 0, whose sum is 1."""
ClipPrompt = str | Mix
"""The prompt of one clip, as pyrf holds it."""
GivenPrompt = str | Mapping[str, float] | Sequence[tuple[str, float]]
"""The prompt of one clip, as it is given: `"a"`, `[("a", 0.7), ("b", 0.3)]` or `{"a": 0.7, "b": 0.3}`."""


def is_one(prompt: object) -> TypeGuard[GivenPrompt]:
    """Whether a prompt is that of one clip, and no list of prompts."""
    if isinstance(prompt, str | Mapping):
        return True
    return isinstance(prompt, list | tuple) and bool(prompt) and all(map(_is_pair, prompt))


def _is_pair(item: object) -> bool:
    pair = isinstance(item, list | tuple) and len(item) == 2
    return pair and isinstance(item[0], str) and not isinstance(item[1], str)  # type: ignore[index]


def as_mix(prompt: object) -> ClipPrompt:
    """The prompt of one clip, its weights scaled to a sum of 1.

    A text of weight 0 is left out, so a prompt that has one text left is that text alone.

    Raises:
        ValueError: when it is neither a text nor texts with weights, or a weight is not finite, is negative,
            or all of them are 0, or when it has too many texts, or one twice.
    """
    if isinstance(prompt, str):
        return prompt
    if not is_one(prompt):
        raise ValueError(
            "a prompt must be a string, or a list of (text, weight) pairs, "
            f"got {type(prompt).__name__}; say what to show in words"
        )
    pairs = list(prompt.items() if isinstance(prompt, Mapping) else prompt)
    if not 0 < len(pairs) <= MAX_TEXTS:
        raise ValueError(f"a weighted prompt has 1 to {MAX_TEXTS} texts, got {len(pairs)}; leave some out")
    weights: dict[str, float] = {}
    for text, weight in pairs:
        if not isinstance(text, str):
            raise ValueError(f"a text of a weighted prompt must be a string, got {type(text).__name__}")
        if text in weights:
            raise ValueError(f"{_short(text)} stands twice in a weighted prompt; give it one weight")
        weights[text] = _weight(text, weight)
    total = math.fsum(weights.values())
    if total == 0:
        raise ValueError("all weights of a weighted prompt are 0; give at least one text a weight above 0")
    kept = [(text, weight / total) for text, weight in weights.items() if weight / total > 0]
    return kept[0][0] if len(kept) == 1 else tuple(kept)


def _weight(text: str, weight: object) -> float:
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not is_number or not 0 <= float(weight) <= 1e9:  # type: ignore[arg-type]
        raise ValueError(f"the weight of {_short(text)} must be a number from 0 to 1e9, got {weight!r}")
    return float(weight)  # type: ignore[arg-type]


def texts_of(prompt: ClipPrompt) -> tuple[str, ...]:
    """The texts of a prompt."""
    return (prompt,) if isinstance(prompt, str) else tuple(text for text, _ in prompt)


def as_json(prompt: ClipPrompt) -> str | dict[str, float]:
    """A prompt as files and the wire hold it: a text, or an object of weights by text."""
    return prompt if isinstance(prompt, str) else dict(prompt)


def told(prompt: ClipPrompt) -> str:
    """A prompt in one line, for people."""
    if isinstance(prompt, str):
        return prompt
    return " + ".join(f"{100 * weight:.3g} % {text}" for text, weight in prompt)


def shown(prompt: ClipPrompt | tuple[ClipPrompt, ...]) -> str:
    """A prompt, or several, shortly and in one line, for a `repr`."""
    if is_one(prompt):
        return _short(told(as_mix(prompt)))
    return f"{len(prompt)} prompts"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
