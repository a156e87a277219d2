"""What a model knows, as its bundle says it: the words, the sizes, and limits for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pyrf.bundle.json_file import BundleError, naming
from pyrf.checks import check_whole


@dataclass(frozen=True)
class Card:
    """What a bundle says of its model; Wan's say nothing, as any word may be right there.

    Attributes:
        vocabulary: every word that the model has learned; empty: the bundle does not say.
        unlearned: words that its tokenizer has, and that the model has not learned.
        sizes: height and width in pixels of the frames it was trained on; empty: the bundle does not say.
        limits: sentences for people.

    Raises:
        ValueError: when a value is of another kind.
    """

    vocabulary: tuple[str, ...] = ()
    unlearned: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    limits: tuple[str, ...] = ()

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

    def __repr__(self) -> str:
        sizes = ", ".join(f"{height} x {width}" for height, width in self.sizes) or "any size"
        return f"<Card: {len(self.vocabulary)} words, {len(self.unlearned)} not learned, frames of {sizes}>"

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
            return cls(**{name: _frozen(value) for name, value in values.items()})


def _sequence(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, tuple):
        raise ValueError(f"{name} must be a list, got {value!r}")
    return value


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples, at every depth."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
