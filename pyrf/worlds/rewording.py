"""One attribute of a prompt said anew: the phrase of another value takes the place of its phrase."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyrf.worlds.world import Facts, WorldPrompt

Wording = Mapping[str, Sequence[str]]
"""Value -> the phrases that mean it."""
Wordings = Mapping[str, Sequence[Wording]]
"""Attribute -> its tables of phrases, a table per kind of phrase."""
_ARTICLES = ("a ", "an ", "the ")


class _Place(NamedTuple):
    start: int
    end: int
    name: str
    wording: Wording


def change(
    prompt: WorldPrompt, values: Mapping[str, Sequence[str]], wordings: Wordings, rng: random.Random
) -> WorldPrompt | None:
    """The prompt with another value of one attribute; its other words stay.

    Args:
        values: attribute -> what it may become; those that are not here stay as they are.

    Returns:
        None where no attribute can be changed by itself.
    """
    names = [name for name in values if prompt.asks.get(name) is not None]
    for name in rng.sample(names, len(names)):
        others = [value for value in values[name] if value != prompt.asks[name]]
        for value in rng.sample(others, len(others)):
            text = reword(prompt, name, value, wordings, rng)
            if text is not None:
                return WorldPrompt(text, {**prompt.asks, name: value})
    return None


def reword(prompt: WorldPrompt, name: str, value: str, wordings: Wordings, rng: random.Random) -> str | None:
    """The text with another value of one attribute; all its other words stay.

    The new phrase is of the same kind as the old one, and has an article where that has one.

    Args:
        name: the attribute to change.
        value: what it is to be.

    Returns:
        None where the attribute's phrase cannot be told from another's, or no phrase fits in its place.
    """
    text = prompt.text
    places = _places(text, prompt.asks, wordings)
    own = [place for place in places if place.name == name]
    if len(own) != 1:
        return None
    (place,) = own
    if any(p.name != name and p.start < place.end and place.start < p.end for p in places):
        return None
    old = text[place.start : place.end]
    phrases = [
        phrase
        for phrase in place.wording.get(value, ())
        if phrase.startswith(_ARTICLES) == old.startswith(_ARTICLES)
    ]
    return f"{text[: place.start]}{rng.choice(phrases)}{text[place.end :]}" if phrases else None


def _places(text: str, asks: Facts, wordings: Wordings) -> list[_Place]:
    """Where phrases of what is asked stand; those within a longer one are left out."""
    found = []
    stated = [(name, value) for name, value in asks.items() if value is not None]
    for name, value in stated:
        for wording in wordings.get(name, ()):
            for phrase in set(wording.get(value, ())):
                for match in re.finditer(rf"\b{re.escape(phrase)}\b", text):
                    found.append(_Place(match.start(), match.end(), name, wording))
    return [
        place
        for place in found
        if not any(
            other.start <= place.start
            and place.end <= other.end
            and other.end - other.start > place.end - place.start
            for other in found
        )
    ]
