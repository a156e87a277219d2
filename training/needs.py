"""What a stage needs before it can run: files, and the memory of each GPU."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyrf.memory.bill import MemoryRow


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
