"""The `pyrf` command: a user's error is one line and exit code 2; a signal is one line and the signal's code.

The commands are in `pyrf.commands`. They are imported late, so that Ctrl-C is heard from the first moment.
"""

from __future__ import annotations

import sys

from pyrf import printing, stops

USER_ERROR = 2

# In what words torch, on any device and system, says it in place of a MemoryError.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; a user's error is one line on stderr, without a traceback."""
    try:
        return _call(arguments)
    except stops.Stopped as stopped:
        printing.tell(_line(stopped))
        return stopped.code
    except printing.ReaderGoneError as gone:
        printing.tell(_line(gone, "stopped: "))
        return printing.READER_GONE
    except (ValueError, OSError) as error:
        message = _line(error)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        message = "out of memory; smaller frames, a shorter window, a smaller model and bfloat16 need less"
        message = " ".join([message, *getattr(error, "__notes__", ())])
    printing.tell(f"error: {message}")
    return USER_ERROR


def _call(arguments: list[str]) -> int:
    import typer

    from pyrf.commands.app import app

    try:
        code = app(arguments, prog_name="pyrf", standalone_mode=False)
    except typer.TyperException as error:  # in how a command is called
        context = getattr(error, "ctx", None)
        asked = context.command_path if context is not None else "pyrf"
        raise ValueError(f"{error.format_message()} (see {asked} --help)") from error
    return code if isinstance(code, int) else 0


def _line(error: BaseException, message: str = "") -> str:
    """An error's words and notes in one line."""
    return " ".join(" ".join([message + str(error), *getattr(error, "__notes__", ())]).split())


def main() -> None:
    """Entry point of the `pyrf` command."""
    stops.catch()
    printing.prepare()
    code = run(sys.argv[1:])
    stops.ending(code)
    failure = printing.settle()
    if failure is not None and code == 0:
        code = printing.READER_GONE if isinstance(failure, BrokenPipeError) else USER_ERROR
        printing.tell(f"error: cannot print the result: {failure.strerror}")
    sys.exit(code)
