"""What a stage needs before it can run: files, and the memory of each GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pyrf.bundle.bundle import BundleError
from pyrf.bundle.hub import find_bundle

HUB_ID = r"[\w.-]+/[\w.-]+"


@dataclass(frozen=True)
class FileNeed:
    """A file or bundle that a stage reads.

    Attributes:
        there: whether it is on this machine, in the hub's cache included.
    """

    stage: str
    what: str
    name: str
    there: bool


@dataclass(frozen=True)
class NetworkSize:
    """Parameters of a sharded DiT.

    Attributes:
        parameters: of the whole.
        share: of them that the fullest process keeps.
        gathered: of them that are whole at once: two blocks, one computing and one arriving, and all that
            is in no block.
    """

    parameters: int
    share: int
    gathered: int


@dataclass(frozen=True)
class MemoryRow:
    """A part of a GPU's memory.

    Attributes:
        bytes: of it.
        how: what they are.
    """

    part: str
    bytes: int
    how: str


@dataclass(frozen=True)
class Needs:
    """Of one stage.

    Attributes:
        networks: parameters by network.
        memory: of the fullest GPU, by part.
        host_bytes: on the CPU, in each process.
    """

    files: list[FileNeed]
    networks: dict[str, NetworkSize] = field(default_factory=dict)
    memory: list[MemoryRow] = field(default_factory=list)
    host_bytes: int = 0


def has_bundle(name: str) -> bool:
    """Whether a bundle need not be downloaded."""
    if not re.fullmatch(HUB_ID, name) or Path(name).is_dir():
        try:
            return find_bundle(name).is_dir()
        except BundleError:
            return False
    from huggingface_hub import try_to_load_from_cache

    return any(
        isinstance(try_to_load_from_cache(name, file), str) for file in ("model_index.json", "config.json")
    )


def has_file(name: str) -> bool:
    """Whether a file, local or "owner/name/file" on the hub, need not be downloaded."""
    match = re.fullmatch(rf"({HUB_ID})/(.+)", name)
    if Path(name).is_file() or not match:
        return Path(name).is_file()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(*match.groups()), str)
