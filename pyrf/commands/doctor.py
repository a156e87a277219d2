"""`pyrf doctor`: is the installation sound?"""

from __future__ import annotations

import typer

from pyrf.commands.options import ModelOption


def doctor(model: ModelOption = "tiny") -> None:
    """Check the installation; exit code 1 when something is broken."""
    from pyrf.reports.doctor import report

    if not report(model):
        raise typer.Exit(1)
