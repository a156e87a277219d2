"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[
    str, typer.Option("--model", help="A bundled model, a model directory, or a hub id.", metavar="NAME|DIR")
]
StudentOption = Annotated[
    str | None, typer.Option("--student", help="Student weights over the model's, a file or a hub id.")
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32 or bfloat16; for tensorrt also float16.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...")]
BackendOption = Annotated[
    str, typer.Option("--backend", help="Who computes: torch, onnxruntime on a CPU, or tensorrt on a GPU.")
]
ExportedOption = Annotated[
    Path | None,
    typer.Option(
        "--exported",
        help="A folder that pyrf export wrote; by default made when first needed.",
        metavar="DIR",
    ),
]
HeightOption = Annotated[int | None, typer.Option(help="Of a frame, in pixels; by default the model's.")]
WidthOption = Annotated[int | None, typer.Option(help="Of a frame, in pixels; by default the model's.")]
WindowOption = Annotated[
    int | None,
    typer.Option(help="Latent frames that a chunk sees, itself included; by default the model's."),
]
