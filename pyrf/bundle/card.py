"""What a model knows, as its bundle says it: words, sizes, limits, and what people may choose and see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pyrf.bundle.json_file import BundleError, naming
from pyrf.checks import check_whole

MAX_GROUPS, MAX_PHRASES, MAX_GALLERY = 16, 32, 32
"""Groups of choices, phrases of a group, and entries of a gallery: what a person can look through."""
MAX_NAME, MAX_PHRASE, MAX_SHOWN_PROMPT = 40, 80, 500
"""Characters of a group's name, of a phrase, and of a prompt of the gallery."""
MAX_SHOWN_SEED = 2**53 - 1
"""Of the gallery: a browser's numbers are exact up to here."""


@dataclass(frozen=True)
class Shown:
    """A prompt and a seed that show well together.

    Raises:
        ValueError: when a value is of another kind, or too large.
    """

    prompt: str
    seed: int

    def __post_init__(self) -> None:
        _check_text("each prompt of gallery", self.prompt, MAX_SHOWN_PROMPT)
        check_whole("each seed of gallery", self.seed, 0, MAX_SHOWN_SEED)


@dataclass(frozen=True)
class Card:
    """What a bundle says of its model; Wan's say nothing, as any word may be right there.

    Attributes:
        vocabulary: every word that the model has learned; empty: the bundle does not say.
        unlearned: words that its tokenizer has, and that the model has not learned.
        sizes: height and width in pixels of the frames it was trained on; empty: the bundle does not say.
        limits: sentences for people.
        choices: a group's name -> phrases that can stand in a prompt, one of a group at a time.
        gallery: prompts that show well, each with its seed.

    Raises:
        ValueError: when a value is of another kind; when choices or the gallery are too many or too long.
    """

    vocabulary: tuple[str, ...] = ()
    unlearned: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    limits: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    gallery: tuple[Shown, ...] = ()

    def __post_init__(self) -> None:
        for name in ("vocabulary", "unlearned", "limits"):
            for text in _sequence(name, getattr(self, name)):
                if not isinstance(text, str) or not text.strip():
                    raise ValueError(f"{name} must hold strings, got {text!r}")
        for size in _sequence("sizes", self.sizes):
            if len(_sequence("each of sizes", size)) != 2:
                raise ValueError(f"each of sizes must be a height and a width, got {size!r}")
            for side in size:
                check_whole("each side of sizes", side)
        _check_choices(self.choices)
        _check_count("gallery", _sequence("gallery", self.gallery), MAX_GALLERY)
        for shown in self.gallery:
            if not isinstance(shown, Shown):
                raise ValueError(f"each of gallery must be a prompt and a seed, got {shown!r}")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes) or "any size"
        return f"<Card: {len(self.vocabulary)} words, {len(self.unlearned)} not learned, frames of {sizes}>"

    @property
    def example(self) -> str | None:
        """A prompt to begin with: the gallery's first, else a phrase of each group; None without."""
        if self.gallery:
            return self.gallery[0].prompt
        return ", ".join(phrases[0] for phrases in self.choices.values()) or None

    def of_another_student(self) -> Card:
        """What is still true with other weights: the words that the tokenizer has."""
        return Card(vocabulary=(*self.vocabulary, *self.unlearned))

    def to_dict(self) -> dict[str, Any]:
        """What is written: JSON, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, values: object, path: Path) -> Card:
        """Inverse of `to_dict`.

        Raises:
            BundleError: naming `path`, when a value is unknown or of another kind.
        """
        if not isinstance(values, dict):
            raise BundleError(f"{path}: card must be an object, found {values!r}")
        if unknown := sorted(set(values) - {field.name for field in fields(cls)}):
            raise BundleError(f"{path}: card has unknown entries {unknown}")
        with naming(path):
            read = {name: _frozen(value) for name, value in values.items()}
            if isinstance(gallery := read.get("gallery"), tuple):
                read["gallery"] = tuple(_shown(entry) for entry in gallery)
            return cls(**read)


def _sequence(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, tuple):
        raise ValueError(f"{name} must be a list, got {value!r}")
    return value


def _check_count(name: str, items: Sequence[Any] | Mapping[Any, Any], most: int) -> None:
    if len(items) > most:
        raise ValueError(f"{name} may have {most} entries, got {len(items)}")


def _check_text(name: str, text: object, most: int) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} must be a string, got {text!r}")
    if len(text) > most:
        raise ValueError(f"{name} may have {most} characters, got {len(text)}")


def _check_choices(choices: object) -> None:
    if not isinstance(choices, Mapping):
        raise ValueError(f"choices must be an object, got {choices!r}")
    _check_count("choices", choices, MAX_GROUPS)
    seen: set[str] = set()
    for name, phrases in choices.items():
        _check_text("each name of choices", name, MAX_NAME)
        where = f"choices of {name!r}"
        if not _sequence(where, phrases):
            raise ValueError(f"{where} must hold a phrase")
        _check_count(where, phrases, MAX_PHRASES)
        for phrase in phrases:
            _check_text(f"each of {where}", phrase, MAX_PHRASE)
            if phrase in seen:
                raise ValueError(f"choices must hold a phrase once, got {phrase!r} again")
            seen.add(phrase)


def _shown(entry: object) -> Shown:
    if not isinstance(entry, dict) or set(entry) != {"prompt", "seed"}:
        raise ValueError(f"each of gallery must be a prompt and a seed, got {entry!r}")
    return Shown(**entry)


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples, at every depth."""
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
