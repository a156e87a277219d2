"""What `pyrf export --to` can write. A target is a function in `TARGETS`; it imports what it needs itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pyrf.bundle.bundle import Bundle
from pyrf.export.manifest import Manifest, Report
from pyrf.extras import needs


@dataclass(frozen=True)
class ExportOptions:
    """How a bundle is written.

    Attributes:
        dtype: of the target's own choice of names.
        height, width: of a frame in pixels; None: the bundle's.
        device: where fp8 is calibrated; for a GPU's engines that GPU.
        check_chunks: chunks to compare with torch; 0: none.
    """

    dtype: str
    height: int | None
    width: int | None
    device: torch.device
    check_chunks: int


Target = Callable[[Bundle, Path, ExportOptions, Report], list[str]]
"""Writes a bundle to a folder, which must not exist, and returns the lines of a summary. It raises ValueError
when a package is missing or an option does not fit."""


def to_onnx(bundle: Bundle, out: Path, options: ExportOptions, report: Report) -> list[str]:
    """Write ONNX graphs (a `Target`)."""
    with needs("onnx", "exporting"):
        import onnx_ir as ir

        from pyrf.backends.onnxruntime.parity import check_parity
        from pyrf.export.exporter import export_onnx

    manifest = export_onnx(
        bundle,
        out,
        dtype=options.dtype,
        height=options.height,
        width=options.width,
        device=options.device,
        report=report,
    )
    rows = [
        f"{name:14} {sum(1 for _ in ir.load(out / spec.file).graph):6} nodes"
        for name, spec in manifest.graphs.items()
    ]
    rows.append(f"{'files':14} {_mebibytes(manifest):6.1f} MiB, {len(manifest.files)} and the manifest")
    if options.check_chunks:
        report("parity")
        parity = check_parity(bundle, out, options.check_chunks)
        rows.append(
            f"{'parity':14} of {parity.chunks} chunks in ONNX Runtime with torch in float32: latents differ "
            f"by {parity.max_error:.1e} at most, {parity.relative_error:.1e} of their size; frames "
            f"{parity.psnr:.1f} dB" + ("; bfloat16 was computed as float32" if parity.widened else "")
        )
    return rows


def _mebibytes(manifest: Manifest) -> float:
    return sum(size for size, _ in manifest.files.values()) / 2**20


def to_tensorrt(bundle: Bundle, out: Path, options: ExportOptions, report: Report) -> list[str]:
    """Write ONNX graphs and engines for this machine's GPU (a `Target`)."""
    from pyrf.export.tensorrt.target import to_tensorrt

    return to_tensorrt(bundle, out, options, report)


TARGETS: dict[str, Target] = {"onnx": to_onnx, "tensorrt": to_tensorrt}
