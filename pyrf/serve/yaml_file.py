"""YAML files that options of the server name: of bounded size, and refused in the option's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pyrf.files import expanded

MAX_BYTES = 1_000_000


def read_yaml(option: str, file: str, *, of: str, if_missing: str | None = None) -> Any:
    """What a file holds; None for an empty one.

    Args:
        option: that names it, such as "--keys".
        of: what it should hold, for people.
        if_missing: what to do when there is no such file, for people.

    Raises:
        ValueError: when it cannot be read, and why.
    """
    path = Path(expanded(file))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{option} {file} is larger than {MAX_BYTES} bytes; is it a file of {of}?")
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        if if_missing is not None and isinstance(error, FileNotFoundError):
            raise ValueError(f"{option} {file}: there is no such file; {if_missing}") from None
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"{option} {file} cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{option} {file} is no YAML: {' '.join(str(error).split())}") from None
