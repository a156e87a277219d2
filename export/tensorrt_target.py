"""`pyrf export --to tensorrt`: the graphs of a bundle, and their engines for the GPU of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pyrf.backends.cuda import CudaDevice
from pyrf.backends.tensorrt import DECODER, STUDENT
from pyrf.bundle import Bundle
from pyrf.export.engine_cache import Report
from pyrf.export.engines import BuildOptions, EngineFolder
from pyrf.export.manifest import ExportError, load_manifest
from pyrf.export.targets import to_onnx
from pyrf.export.tensorrt_runtime import load_tensorrt, target

DTYPES = ("bfloat16", "float16", "fp8")


def to_tensorrt(
    bundle: Bundle,
    out: Path,
    *,
    dtype: str,
    height: int | None,
    width: int | None,
    device: torch.device,
    check_chunks: int,
    report: Callable[[str], None],
) -> list[str]:
    """Write ONNX graphs, and build their engines beside them (a `pyrf.export.targets.Target`)."""
    trt = load_tensorrt()
    if dtype not in DTYPES:
        raise ExportError(f"for TensorRT, --dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    gpu = CudaDevice(device)
    rows = to_onnx(
        bundle,
        out,
        dtype=dtype,
        height=height,
        width=width,
        device=device,
        check_chunks=check_chunks,
        report=report,
    )
    options = BuildOptions(device=gpu.index)
    engines = EngineFolder(out, load_manifest(out), target(trt, gpu.compute_capability), options, report)
    return rows + build_engines(engines, report)


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
