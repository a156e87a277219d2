"""Configurations on disk: read with checks, and refused by a line that names the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrf.bundle.sniff import JSON, strange
from pyrf.checks import check_positive, check_whole


class BundleError(ValueError):
    """A bundle that cannot be found, read or written. The message says what to do."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Around what is built from the values of a file: a refusal of them names it.

    Raises:
        BundleError: in place of a ValueError or TypeError.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}") from error


class JsonFile:
    """A JSON object on disk, whose values are read with a check.

    Raises:
        BundleError: when it is missing, damaged or not an object; from its methods, when a value is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if form := strange(path, JSON):
            raise BundleError(f"{path}: damaged JSON: it is {form}")
        try:
            self.values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BundleError(f"{path}: missing or unreadable ({error.strerror})") from error
        except ValueError as error:
            raise BundleError(f"{path}: damaged JSON ({error})") from error
        if not isinstance(self.values, dict):
            raise BundleError(f"{path}: expected a JSON object, found {type(self.values).__name__}")

    def number(self, name: str, default: float) -> float:
        """The value of `name`, positive and finite."""
        value: float = self.values.get(name, default)
        with naming(self.path):
            check_positive(name, value)
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """The value of `name`, a whole number of 1 or more."""
        value: int = self.values.get(name, default)
        with naming(self.path):
            check_whole(name, value)
        return value

    def require(self, name: str, *expected: object, default: object = None) -> None:
        """Refuse any value of `name` but those `expected`; a file without it has `default`."""
        found = self.values.get(name, default)
        if found not in expected:
            wanted = " or ".join(map(repr, expected))
            raise BundleError(f"{self.path}: {name} must be {wanted}, found {found!r}")


def require_file(path: Path) -> None:
    """Refuse a bundle without a file.

    Raises:
        BundleError: naming it.
    """
    if not path.is_file():
        raise BundleError(f"{path}: missing from the bundle")


def require_json(path: Path) -> None:
    """Refuse a bundle without a file of JSON, or with something else in its place.

    Raises:
        BundleError: naming it, and what it is.
    """
    require_file(path)
    if form := strange(path, JSON):
        raise BundleError(f"{path}: not JSON: it is {form}")
