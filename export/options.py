"""How a bundle is exported, and what a target of `pyrf export --to` is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pyrf.bundle.bundle import Bundle

Report = Callable[[str], None]
"""Told in a few words what begins or happens."""

Check = Callable[[Path], None]
"""Looks at the graphs of a folder before it gets its name. It raises ExportError when they are wrong."""


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle is written.

    Attributes:
        dtype: one of the target's own names.
        precision: see `export_onnx`.
        height, width: of a frame in pixels; None: the bundle's.
        device: where fp8 is calibrated; for a GPU's engines that GPU.
        check: looks at the graphs before anything is made of them; None: nobody does.
    """

    dtype: str
    height: int | None
    width: int | None
    device: torch.device
    check: Check | None
    precision: str | None = None


ExportTarget = Callable[[Bundle, Path, ExportOptions, Report], list[str]]
"""Writes a bundle to a folder, which must not exist, and returns the lines of a summary. It raises ValueError
when a package is missing, an option does not fit, or the graphs fail their check."""
