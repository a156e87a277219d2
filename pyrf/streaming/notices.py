"""What a person should be told of a prompt or a size: never a refusal."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from pyrf.bundle.card import Card
from pyrf.models.text.encoder import TextEncoder, clean_prompt
from pyrf.models.text.words import words_of

ALIKE, ALIKE_STEM = 0.75, 0.6
"""Of `difflib`, from which on a word may be meant; the second where both begin with the same four letters."""
LISTED = 8
"""Words that a notice lists."""
LONGEST = 40
"""Characters of a word that a notice shows."""
FILLERS = {
    "a", "against", "and", "around", "at", "does", "in", "is", "not", "of", "off", "on", "over", "that",
    "the", "to", "with",
}  # fmt: skip
"""Words that nobody means who writes another one."""

_told: ContextVar[bool] = ContextVar("told", default=False)


class PromptWarning(UserWarning):
    """A prompt, or a size, that the model has not learned."""


def unknown_words(card: Card, text: TextEncoder, prompt: str) -> dict[str, str | None]:
    """The words of a prompt that the model has not learned, each with the nearest word that it has.

    Judged by what the tokenizer makes of the prompt: case and punctuation do not matter where they do not
    to the model. A bundle that does not say what it knows has no unknown words.

    Returns:
        Words in small letters, in their order; None where no known word is near.
    """
    if not card.vocabulary:
        return {}
    known, nearest = set(card.vocabulary), {}
    for word in words_of(text.tokenizer, clean_prompt(prompt)):
        if not word.known or word.plain not in known:
            nearest[word.plain] = _nearest(word.plain, known)
    return nearest


def _nearest(word: str, known: Iterable[str]) -> str | None:
    word = word[:LONGEST]
    near = difflib.get_close_matches(word, sorted(set(known) - FILLERS), n=3, cutoff=ALIKE_STEM)
    for candidate in near:  # the best first
        is_alike = difflib.SequenceMatcher(None, candidate, word).ratio() >= ALIKE
        if is_alike or candidate[:4] == word[:4]:
            return candidate
    return None


def prompt_notices(card: Card, text: TextEncoder, prompt: str) -> list[str]:
    """Sentences on a prompt that is good, of a bounded length; none where all of it is known."""
    if not card.vocabulary:
        return []
    if not words_of(text.tokenizer, clean_prompt(prompt)):
        return ["the model reads no word of this prompt; describe what to show in words that it knows"]
    unlearned = set(card.unlearned)
    found = unknown_words(card, text, prompt)
    found.pop("an", None)  # it stands before a word that is told of, and says nothing more
    notices = []
    for what, words in (
        ("does not know", [word for word in found if word not in unlearned]),
        ("has not learned", [word for word in found if word in unlearned]),
    ):
        if words:
            shown = ", ".join(_shown(word, found[word]) for word in words[:LISTED])
            more = f", and {len(words) - LISTED} more" if len(words) > LISTED else ""
            notices.append(f"the model {what} {shown}{more}; what they mean is not shown")
    return notices


def _shown(word: str, nearest: str | None) -> str:
    cut = word if len(word) <= LONGEST else word[: LONGEST - 3] + "..."
    return repr(cut) + (f" (near: {nearest!r})" if nearest else "")


def size_notices(card: Card, height: int, width: int) -> list[str]:
    """A sentence on a size of frames, height and width in pixels, that the model was not trained on."""
    if not card.sizes or (height, width) in card.sizes:
        return []
    sizes = " or ".join(f"{rows} x {columns}" for rows, columns in card.sizes)
    return [f"the model was trained on frames of {sizes}, not of {height} x {width}; pictures may be worse"]


@contextmanager
def told_elsewhere() -> Iterator[None]:
    """Inside, streams do not warn: who asked for them hears of their notices in another way."""
    token = _told.set(True)
    try:
        yield
    finally:
        _told.reset(token)


def is_told_elsewhere() -> bool:
    """Whether this is inside `told_elsewhere`."""
    return _told.get()


def warn(notices: Sequence[str]) -> None:
    """Give notices to Python's `warnings`, as of the line outside of pyrf that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "pyrf":
        level, frame = level + 1, frame.f_back
    for notice in notices:
        warnings.warn(notice, PromptWarning, stacklevel=level)
