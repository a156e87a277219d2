"""`pyrf export --to tensorrt`: the graphs of a bundle, and their engines for the GPU of this machine."""

from __future__ import annotations

from pathlib import Path

from pyrf.backends.tensorrt.cuda import CudaDevice
from pyrf.backends.tensorrt.rollout import DECODER, STUDENT
from pyrf.backends.tensorrt.runtime import load_tensorrt, target
from pyrf.bundle.bundle import Bundle
from pyrf.export.manifest import ExportError, Report, load_manifest
from pyrf.export.targets import ExportOptions, to_onnx
from pyrf.export.tensorrt.engines import BuildOptions, EngineFolder

DTYPES = ("bfloat16", "float16", "fp8")


def to_tensorrt(bundle: Bundle, out: Path, options: ExportOptions, report: Report) -> list[str]:
    """Write ONNX graphs, and build their engines beside them (a `pyrf.export.targets.Target`)."""
    trt = load_tensorrt()
    if options.dtype not in DTYPES:
        raise ExportError(f"for TensorRT, --dtype must be one of {', '.join(DTYPES)}, got {options.dtype!r}")
    gpu = CudaDevice(options.device)
    rows = to_onnx(bundle, out, options, report)
    build = BuildOptions(device=gpu.index)
    engines = EngineFolder(out, load_manifest(out), target(trt, gpu.compute_capability), build, report)
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
