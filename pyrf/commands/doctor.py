"""`pyrf doctor`: is the installation sound?"""

from __future__ import annotations

from typing import Annotated

import typer

from pyrf.commands.options import DEFAULT_MODEL, ModelOption


def doctor(
    model: ModelOption = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the installation; exit code 1 when something is broken."""
    from pyrf.reports.doctor import report

    if not report(model, as_json=as_json):
        raise typer.Exit(1)
