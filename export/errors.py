"""What exporting refuses with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ExportError(ValueError):
    """An export is missing, damaged, wrong, or made for something else."""


@contextmanager
def onnx_extra() -> Iterator[None]:
    """Around imports that exporting needs.

    Raises:
        ExportError: naming the package that is missing, and what installs it.
    """
    try:
        yield
    except ImportError as error:
        raise ExportError(
            f"exporting needs the package {error.name}; run: pip install 'pyrf[onnx]'"
        ) from error
