"""Named ranges around the stages of a stream, for NVIDIA's profilers; nothing without the package nvtx."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    import nvtx as _nvtx
except ImportError:
    _nvtx = None

nvtx: Any = _nvtx


def stage(name: str) -> AbstractContextManager[object]:
    """A range "pyrf.<name>" from entering to leaving."""
    return nullcontext() if nvtx is None else nvtx.annotate(f"pyrf.{name}")
