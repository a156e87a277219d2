"""Files of API keys, and requests that show one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyrf.serve.keys.file import editing
from pyrf.serve.keys.key import Key, hash_of, new_secret


def add_key(file: Path, name: str, **options: Any) -> str:
    """Put a key into a file, and return it."""
    secret = new_secret()
    with editing(str(file)) as keys:
        keys.append(Key(name=name, sha256=hash_of(secret), **options))
    return secret


def remove_key(file: Path, name: str) -> None:
    with editing(str(file)) as keys:
        keys[:] = [key for key in keys if key.name != name]


def bearing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}
