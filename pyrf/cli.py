"""The `pyrf` command: its parts are in `pyrf.commands`; a user's error is one line and exit code 2."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from pyrf.commands.bench import bench
from pyrf.commands.doctor import doctor
from pyrf.commands.eval import app as evaluation
from pyrf.commands.export import export
from pyrf.commands.generate import generate
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
app.command()(serve)
app.command()(train)
app.command()(export)
app.command()(words)
app.add_typer(evaluation, name="eval")

USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143

# In what words torch, on any device and system, says it in place of a MemoryError.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def _version(wanted: bool) -> None:
    if wanted:
        from pyrf import __version__

        typer.echo(f"pyrf {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; a user's error is one line on stderr, without a traceback."""
    try:
        code = app(arguments, prog_name="pyrf", standalone_mode=False)
    except typer.TyperException as error:  # in how a command is called
        message = f"{error.format_message()} (see pyrf --help)"
    except (ValueError, OSError) as error:
        message = str(error)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        message = "out of memory; smaller frames, a shorter window, a smaller model and bfloat16 need less"
    except KeyboardInterrupt:
        return INTERRUPTED
    else:
        return code if isinstance(code, int) else 0
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def main() -> None:
    """Entry point of the `pyrf` command."""
    # A plain `kill` must clean up as Ctrl-C does.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    sys.exit(run(sys.argv[1:]))
