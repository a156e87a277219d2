"""`pyrf export --to onnx`: the graphs of a bundle."""

from __future__ import annotations

from pathlib import Path

from pyrf.bundle.bundle import Bundle
from pyrf.export.options import ExportOptions, Report
from pyrf.extras import needs


def to_onnx(bundle: Bundle, out: Path, options: ExportOptions, report: Report) -> list[str]:
    """Write ONNX graphs (an `ExportTarget`)."""
    with needs("onnx", "exporting"):
        import onnx_ir as ir

        from pyrf.export.exporter import export_onnx

    manifest = export_onnx(
        bundle,
        out,
        dtype=options.dtype,
        precision=options.precision,
        height=options.height,
        width=options.width,
        device=options.device,
        check=options.check,
        report=report,
    )
    rows = [
        f"{name:14} {sum(1 for _ in ir.load(out / spec.file).graph):6} nodes"
        for name, spec in manifest.graphs.items()
    ]
    mebibytes = sum(size for size, _ in manifest.files.values()) / 2**20
    return [*rows, f"{'files':14} {mebibytes:6.1f} MiB, {len(manifest.files)} and the manifest"]
