"""`pyrf export`: a bundle as graphs for other runtimes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.bundle.adapter_file import parse_adapter
from pyrf.commands.options import (
    DeviceOption,
    HeightOption,
    LoraOption,
    StreamOption,
    StudentOption,
    ThreadsOption,
    WidthOption,
    check_named,
    use_threads,
)
from pyrf.extras import needs
from pyrf.files import expanded

if TYPE_CHECKING:
    from pyrf.backends.onnxruntime.parity import Parity
    from pyrf.bundle.bundle import Bundle
    from pyrf.export.options import Check, Report


def export(
    model: Annotated[
        str, typer.Argument(help="A bundled model, a model directory, or a hub id.", metavar="BUNDLE")
    ],
    out: Annotated[Path, typer.Option("--out", help="The directory to write; must be new.")],
    to: Annotated[str, typer.Option(help="What for: onnx, or tensorrt on this machine's GPU.")] = "onnx",
    dtype: Annotated[
        str, typer.Option(help="float32, float16, bfloat16, or fp8 (bfloat16 with float8 products).")
    ] = "float32",
    precision: Annotated[
        str | None, typer.Option(help="fp8-attention: self-attention and its cache in 8 bits.")
    ] = None,
    height: HeightOption = None,
    width: WidthOption = None,
    student: StudentOption = None,
    lora: LoraOption = None,
    stream: StreamOption = None,
    check: Annotated[int, typer.Option(help="Chunks to compare with torch, on this CPU; 0: none.")] = 4,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Write a model as graphs for one frame size, and compare them with torch; those too far from it are not
    written. The device calibrates fp8; for tensorrt it is the GPU that engines are built for."""
    from pyrf.export.options import ExportOptions, check_exported_precision
    from pyrf.export.targets import TARGETS

    if to not in TARGETS:
        raise ValueError(f"--to must be one of {', '.join(TARGETS)}, got {to!r}")
    check_named("--out", out)
    check_exported_precision(precision, dtype)
    if check < 0:
        raise ValueError(f"--check must be 0 or more, got {check}")
    adapters = [parse_adapter(text) for text in lora or ()]
    from pyrf.bundle.bundle import load_bundle
    from pyrf.checks import check_device
    from pyrf.threads import fit_threads

    out = Path(expanded(out))
    use_threads(threads)
    fit_threads()
    bundle = load_bundle(model, student=student, adapters=adapters, stream=stream or ())
    start = time.perf_counter()

    def report(stage: str) -> None:
        printing.tell(f"{time.perf_counter() - start:7.1f} s  {stage}")

    found: list[Parity] = []
    options = ExportOptions(
        dtype=dtype,
        precision=precision,
        height=height,
        width=width,
        device=check_device(device),
        check=_parity_check(bundle, check, found, report) if check else None,
    )
    rows = TARGETS[to](bundle, out, options, report)
    for row in [*rows, *(f"{'parity':14} of {parity}" for parity in found)]:
        printing.say(row)
    printing.say(f"{out}: written in {time.perf_counter() - start:.1f} s")


def _parity_check(bundle: Bundle, chunks: int, found: list[Parity], report: Report) -> Check:
    """Compare graphs with torch, keep what was found, and refuse those that are too far from it."""

    with needs("onnx", "exporting"):
        from pyrf.backends.onnxruntime.parity import measure_parity

    def check(folder: Path) -> None:
        report("parity")
        found.append(measure_parity(bundle, folder, chunks))
        found[-1].check()

    return check
