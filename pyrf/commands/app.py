"""All commands in one `typer` application."""

from __future__ import annotations

from typing import Annotated

import typer

from pyrf import printing
from pyrf.commands.admin import app as admin
from pyrf.commands.bench import bench
from pyrf.commands.doctor import doctor
from pyrf.commands.eval import app as evaluation
from pyrf.commands.export import export
from pyrf.commands.generate import generate
from pyrf.commands.keys import app as keys
from pyrf.commands.osc import osc
from pyrf.commands.script import app as script
from pyrf.commands.serve import serve
from pyrf.commands.train import train
from pyrf.commands.words import words

app = typer.Typer(
    name="pyrf",
    help="Stream text-to-video in real time with Reward Forcing.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(generate)
app.command()(doctor)
app.command()(bench)
app.command(context_settings={"auto_envvar_prefix": "PYRF_SERVE"})(serve)
app.command()(osc)
app.command()(train)
app.command()(export)
app.command()(words)
app.add_typer(evaluation, name="eval")
app.add_typer(script, name="script")
app.add_typer(keys, name="keys")
app.add_typer(admin, name="admin")


def _version(wanted: bool) -> None:
    if wanted:
        from pyrf import __version__

        printing.deliver(f"pyrf {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        printing.deliver(context.get_help())
