"""The words of a prompt, as its tokenizer sees them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

MOST_WORDS = 512
"""Of a prompt that are looked at; no model reads more."""


@dataclass(frozen=True)
class Word:
    """A word of a prompt.

    Attributes:
        text: as it was written.
        plain: as a vocabulary lists it, in small letters.
        known: whether the tokenizer has a token for all of it.
    """

    text: str
    plain: str
    known: bool


def words_of(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """What a tokenizer makes of a cleaned prompt, word by word.

    What it drops, as punctuation, is in no word. A word of several tokens is one word.
    """
    encoding = tokenizer.encode(prompt)
    unknown = _unknown_id(tokenizer)
    pieces: dict[Any, list[int]] = {}
    for i, (number, special) in enumerate(zip(encoding.word_ids, encoding.special_tokens_mask)):
        if not special and number is not None:
            pieces.setdefault(number, []).append(i)
    words = []
    for tokens in list(pieces.values())[:MOST_WORDS]:
        text = prompt[encoding.offsets[tokens[0]][0] : encoding.offsets[tokens[-1]][1]].strip()
        known = all(encoding.ids[i] != unknown for i in tokens)
        whole = len(tokens) == 1 and known
        plain = encoding.tokens[tokens[0]].strip("\u2581\u0120") if whole else text
        words.append(Word(text, unicodedata.normalize("NFKC", plain).lower(), known))
    return words


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id of what the tokenizer does not know, if it has one."""
    token = getattr(tokenizer.model, "unk_token", None)
    return None if token is None else tokenizer.token_to_id(token)
