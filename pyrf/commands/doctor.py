"""`pyrf doctor`: is the installation sound?"""

from __future__ import annotations

from typing import Annotated

import typer

from pyrf.commands.loading import MaxMemoryOption
from pyrf.commands.options import DEFAULT_MODEL, BackendOption, DeviceOption, DtypeOption, ModelOption


def doctor(
    model: ModelOption = DEFAULT_MODEL,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    backend: BackendOption = "torch",
    max_memory: MaxMemoryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the installation; exit code 1 when something is broken."""
    from pyrf.reports.doctor import Loading, report

    if not report(model, Loading(dtype, device, backend, max_memory), as_json=as_json):
        raise typer.Exit(1)
