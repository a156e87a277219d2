"""Packages that only some uses of pyrf need: the extras of its pyproject.toml, refused in one style."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

DISTRIBUTION = "pyrf-stream"
"""Under which pyrf is installed: a package index has another project of its own name."""


class MissingExtraError(ValueError):
    """A package that an extra brings is not installed, or does not load."""


def require(extra: str, purpose: str, *modules: str) -> None:
    """Refuse to go on without modules of an extra. Nothing is imported, so this is quick.

    Args:
        extra: which of pyproject.toml's extras brings them, as "serve".
        purpose: what needs them; the message begins with it.
        modules: names as they are imported.

    Raises:
        MissingExtraError: all that are missing, and how they are installed.
    """
    missing = [name for name in modules if not is_installed(name)]
    if missing:
        raise MissingExtraError(_message(extra, purpose, ", ".join(missing)))


@contextmanager
def needs(extra: str, purpose: str) -> Iterator[None]:
    """Around the imports of an extra's modules.

    Args:
        extra, purpose: as for `require`.

    Raises:
        MissingExtraError: the first module that is missing or does not load, and how it is installed.
    """
    try:
        yield
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] == "pyrf":
            raise
        plain = isinstance(error, ModuleNotFoundError) and error.name is not None
        name = error.name if plain else f"a package that does not load here ({error})"
        raise MissingExtraError(_message(extra, purpose, str(name))) from error


def install_hint(extra: str) -> str:
    """How an extra is installed: from a clone, as nothing is on a package index yet."""
    return f"pip install '.[{extra}]' in a clone of pyrf"


def _message(extra: str, purpose: str, missing: str) -> str:
    return f"{purpose} needs {missing}; run {install_hint(extra)}"


def is_installed(module: str) -> bool:
    """Whether a module is there; it is not imported."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that would hold it
        return False
