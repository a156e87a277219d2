"""The file of API keys: YAML that holds hashes, no keys. It is changed whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, model_validator

from pyrf.files import expanded, whole_file
from pyrf.serve.keys.key import Key
from pyrf.serve.yaml_file import read_yaml
from pyrf.settings import Settings, first_problem

MAX_KEYS = 256
"""Of a file; each key is a label of metrics."""
RESERVED = ("token", "metrics-token")
"""Names that the server gives to the keys of its options."""
_HEADER = "# API keys of pyrf serve: hashes, no keys. `pyrf keys` writes this file anew.\n"


class _Keys(Settings):
    """All that a file holds."""

    keys: list[Key] = Field(default_factory=list)

    @model_validator(mode="after")
    def _distinct(self) -> _Keys:
        names = [key.name for key in self.keys]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"several keys are called {twice[0]!r}; give each a name of its own")
        if taken := [name for name in names if name in RESERVED]:
            raise ValueError(f"the name {taken[0]!r} belongs to an option of the server; choose another")
        if len({key.sha256 for key in self.keys}) < len(self.keys):
            raise ValueError("two names have the same sha256; make a key for each")
        if len(self.keys) > MAX_KEYS:
            raise ValueError(f"there may be {MAX_KEYS} keys, got {len(self.keys)}; revoke some")
        return self


def read_keys(file: str) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        ValueError: when it cannot be read, and why.
    """
    values = read_yaml(
        "--keys", file, of="keys", if_missing=f"make it with `pyrf keys new NAME --keys {file}`"
    )
    try:
        return tuple(_Keys.model_validate({} if values is None else values).keys)
    except ValidationError as error:
        raise ValueError(f"--keys {file}: {first_problem(error)}") from None


@contextmanager
def editing(file: str) -> Iterator[list[Key]]:
    """The keys of a file, to be changed in place; they are written when the block ends without an error.

    Others who edit the same file wait for it. Its mode and owner stay.

    Raises:
        ValueError: as `read_keys`, and when what the block left is no list of keys.
        OSError: when it cannot be written.
    """
    path = Path(os.path.realpath(expanded(file)))
    if not path.parent.is_dir():
        raise ValueError(f"--keys {file}: there is no folder {path.parent}; make it first")
    lock = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = list(read_keys(file)) if path.exists() else []
        yield keys
        try:
            checked = _Keys(keys=keys)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None
        values = [key.model_dump(exclude_none=True) for key in checked.keys]
        with whole_file(path) as temporary:
            temporary.write_text(_HEADER + yaml.safe_dump({"keys": values}, sort_keys=False))
            if path.exists():
                shutil.copymode(path, temporary)
                with suppress(PermissionError):  # only its owner can give it away
                    shutil.chown(temporary, path.stat().st_uid, path.stat().st_gid)
    finally:
        os.close(lock)
