"""TensorRT's Python package: found, asked for its log, and its names of dtypes."""

from __future__ import annotations

import importlib
from typing import Any

from pyrf.extras import needs

TENSORRT_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
    "FP8": "float8_e4m3fn",
}
"""TensorRT's names of dtypes, and the manifest's."""


def load_tensorrt() -> Any:
    """The package tensorrt, once it is known that cuda-python is there too.

    Raises:
        MissingExtraError: when one is not installed, or its libraries do not load.
    """
    with needs("tensorrt", "the tensorrt backend"):
        importlib.import_module("cuda.bindings.runtime")
        return importlib.import_module("tensorrt")


def tensorrt_on(device: int) -> Any:
    """The package tensorrt, as `load_tensorrt`, on the GPU of an index."""
    trt = load_tensorrt()
    importlib.import_module("cuda.bindings.runtime").cudaSetDevice(device)
    return trt


def make_logger(trt: Any) -> tuple[Any, list[str]]:
    """A logger for TensorRT, and the list that its warnings and errors go to."""
    lines: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                lines.append(" ".join(message.split()))

    return Logger(), lines
