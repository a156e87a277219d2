"""A bill of memory: what is held, what is worked with, and the most of both at once. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class MemoryRow:
    """A part of a device's memory.

    Attributes:
        bytes: of it.
        how: what they are.
    """

    part: str
    bytes: int
    how: str


def shown(size: float) -> str:
    """Bytes for people: `7.3 GiB`, `220 MiB`."""
    return f"{size / GIB:.1f} GiB" if abs(size) >= 0.95 * GIB else f"{size / MIB:.0f} MiB"


def total(rows: Iterable[MemoryRow]) -> int:
    """Bytes of some rows."""
    return sum(row.bytes for row in rows)


@dataclass(frozen=True)
class Bill:
    """What one stream of a model needs.

    Attributes:
        device: that the rows are of.
        held: as long as the stream runs.
        work: of the parts that take turns, so that the largest counts.
        host: what lies in the CPU's memory where the device is a GPU.
        loading: bytes that are resident at most while a CPU loads the model; mapped files count, of which
            the system may drop what it needs elsewhere. 0 on a GPU.
        per_stream: bytes of `held` that each further stream takes again.
    """

    device: str
    held: list[MemoryRow]
    work: list[MemoryRow]
    host: list[MemoryRow] = field(default_factory=list)
    loading: int = 0
    per_stream: int = 0

    @property
    def peak(self) -> int:
        """Bytes at most while the stream runs."""
        return total(self.held) + max(row.bytes for row in self.work)

    def line(self, free: int | None) -> str:
        """All in one line."""
        left = "what is free is not known" if free is None else f"{shown(free)} free"
        parts = ", ".join(f"{row.part} {shown(row.bytes)}" for row in self.held if row.bytes >= MIB)
        most = max(self.work, key=lambda row: row.bytes)
        if most.bytes >= MIB:
            parts += f", and {shown(most.bytes)} while {most.part}"
        return (
            f"memory: {parts}: peak {shown(self.peak)} "
            f"on {self.device} with {left}; {shown(self.per_stream)} per further stream"
        )

    def table(self) -> list[str]:
        """A line for each part."""
        places = (("held", self.held), ("at work", self.work), ("on the CPU", self.host))
        return [
            f"{place:11} {row.part:20} {shown(row.bytes):>9}  {row.how}"
            for place, rows in places
            for row in rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON, in bytes."""
        return {
            "device": self.device,
            **{
                name: {row.part: row.bytes for row in rows}
                for name, rows in (("held", self.held), ("work", self.work), ("host", self.host))
            },
            "peak": self.peak,
            "loading": self.loading,
            "per_stream": self.per_stream,
        }
