"""`pyrf export --to tensorrt`: the graphs of a bundle, and their engines for the GPU of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pyrf.bundle.bundle import Bundle
from pyrf.export.errors import ExportError
from pyrf.export.manifest import DECODER, STUDENT, load_manifest
from pyrf.export.onnx_target import to_onnx
from pyrf.export.options import ExportOptions, Report
from pyrf.export.tensorrt.engines import BuildOptions, EngineFolder, EngineTarget
from pyrf.export.tensorrt.library import load_tensorrt

TENSORRT_PRECISIONS = ("bfloat16", "float16", "fp8")


def to_tensorrt(bundle: Bundle, out: Path, options: ExportOptions, report: Report) -> list[str]:
    """Write ONNX graphs, and build their engines beside them (an `ExportTarget`)."""
    trt = load_tensorrt()
    if options.dtype not in TENSORRT_PRECISIONS:
        raise ExportError(
            f"for TensorRT, --dtype must be one of {', '.join(TENSORRT_PRECISIONS)}, got {options.dtype!r}"
        )
    target = target_of(trt, options.device)
    rows = to_onnx(bundle, out, options, report)
    build = BuildOptions(device=options.device.index or 0)
    return rows + build_engines(EngineFolder(out, load_manifest(out), target, build, report), report)


def target_of(trt: Any, device: torch.device) -> EngineTarget:
    """What engines built by a TensorRT on a GPU are good for.

    Raises:
        ExportError: when the device is no GPU, or torch cannot ask it.
    """
    if device.type != "cuda":
        raise ExportError(f"TensorRT needs a CUDA device, got {str(device)!r}; give --device cuda")
    try:
        major, minor = torch.cuda.get_device_capability(device.index or 0)
    except (RuntimeError, AssertionError) as error:
        raise ExportError(f"torch finds no usable NVIDIA GPU ({error}); install the driver") from error
    return EngineTarget.of(trt, f"{major}.{minor}")


def build_engines(engines: EngineFolder, report: Report) -> list[str]:
    """Build what an exported folder lacks; a line for each engine."""
    rows = []
    for name in (*STUDENT, *DECODER):
        report(f"the engine of {name}")
        size = len(engines.engine(name)) / 2**20
        row = f"{name:14} {size:8.1f} MiB engine"
        if name in engines.built:
            built = engines.built[name]
            attention = built.layers.get("ATTENTION_INPUT", 0)
            updates = built.layers.get("KV_CACHE_UPDATE", 0)
            row += f", built in {built.seconds:.1f} s, {attention} fused attentions, {updates} cache updates"
        rows.append(row)
    return rows
