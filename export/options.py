"""How a bundle is exported, and what a target of `pyrf export --to` is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pyrf.bundle.bundle import Bundle
from pyrf.export.errors import ExportError
from pyrf.export.manifest import FP8_ATTENTION

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


def check_exported_precision(precision: str | None, dtype: str) -> None:
    """Refuse a precision that graphs cannot have, alone or beside a dtype.

    Raises:
        ExportError: which one, and what there is.
    """
    if precision is None:
        return
    if precision == "fp8":
        raise ExportError(
            "precision fp8 finds the scales of weights and tokens while it runs, which no graph does; "
            f"export with precision {FP8_ATTENTION}, or with dtype fp8, whose scales are found ahead"
        )
    if precision != FP8_ATTENTION:
        raise ExportError(f"precision must be {FP8_ATTENTION}, or left out, got {precision!r}")
    if dtype == "fp8":
        raise ExportError(
            f"precision {precision} goes with dtype float32, float16 or bfloat16, got fp8, "
            "whose scales are found with a cache in bfloat16"
        )
