"""`pyrf export`: a bundle as graphs for other runtimes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pyrf.commands.options import (
    DeviceOption,
    HeightOption,
    StudentOption,
    WidthOption,
    WindowOption,
)


def export(
    model: Annotated[
        str, typer.Argument(help="A bundled model, a model directory, or a hub id.", metavar="BUNDLE")
    ],
    out: Annotated[Path, typer.Option("--out", help="The directory to write; must be new.")],
    to: Annotated[str, typer.Option(help="What for: onnx, or tensorrt on this machine's GPU.")] = "onnx",
    dtype: Annotated[
        str, typer.Option(help="float32, float16, bfloat16, or fp8 (bfloat16 with float8 products).")
    ] = "float32",
    height: HeightOption = None,
    width: WidthOption = None,
    window: WindowOption = None,
    student: StudentOption = None,
    check: Annotated[
        int, typer.Option(help="Chunks to compare with torch afterwards, on this CPU; 0: none.")
    ] = 4,
    device: DeviceOption = "cpu",
) -> None:
    """Write a model as graphs for one frame size, and compare them with torch. The device calibrates fp8; for
    tensorrt it is the GPU that engines are built for."""
    from pyrf.export.targets import TARGETS, ExportOptions

    if to not in TARGETS:
        raise ValueError(f"--to must be one of {', '.join(TARGETS)}, got {to!r}")
    if check < 0:
        raise ValueError(f"--check must be 0 or more, got {check}")
    from dataclasses import replace

    from pyrf.bundle.bundle import load_bundle
    from pyrf.pipeline import check_device

    bundle = load_bundle(model, student=student)
    if window is not None:
        bundle = replace(bundle, stream_config=replace(bundle.stream_config, window_frames=window))
    start = time.perf_counter()

    def report(stage: str) -> None:
        typer.echo(f"{time.perf_counter() - start:7.1f} s  {stage}", err=True)

    options = ExportOptions(dtype, height, width, check_device(device), check)
    rows = TARGETS[to](bundle, out, options, report)
    for row in rows:
        typer.echo(row)
    typer.echo(f"{out}: written in {time.perf_counter() - start:.1f} s")
