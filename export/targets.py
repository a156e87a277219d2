"""What `pyrf export --to` can write."""

from __future__ import annotations

from pyrf.export.onnx_target import to_onnx
from pyrf.export.options import ExportTarget
from pyrf.export.tensorrt.target import to_tensorrt

TARGETS: dict[str, ExportTarget] = {"onnx": to_onnx, "tensorrt": to_tensorrt}
"""By name. A target imports the packages that it needs when it is called."""
