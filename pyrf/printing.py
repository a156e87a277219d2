"""What commands print: it survives every encoding, and a stdout or stderr that is full, closed or gone.

What is said of a thing that was made never fails. What is itself the product of a command is delivered, or
refused in words.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, TextIO

READER_GONE = 141
"""Exit code when whoever read stdout has gone, as a shell gives it for SIGPIPE."""


class ReaderGoneError(BrokenPipeError):
    """Whoever read stdout has gone."""

    def __init__(self) -> None:
        super().__init__("whoever read the output has gone")


def counted(number: float, noun: str) -> str:
    """`1 frame`, `2.5 seconds`."""
    return f"{number:.10g} {noun}{'s' * (number != 1)}"


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows of as many cells each, their columns under each other."""
    shown = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)


def prepare() -> None:
    """Make the standard streams fit to print on; call it before anything else is opened.

    Closed ones are opened on nothing, or the next file would get their number, and with it what others print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is this one
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def say(text: str) -> None:
    """Print a line on stdout about what was made; where stdout does not take it, on stderr."""
    if _put(sys.stdout, text) is not None:
        tell(text)


def tell(text: str) -> None:
    """Print a line on stderr, if it takes one."""
    _put(sys.stderr, text)


def deliver(text: str) -> None:
    """Print what a command was called for.

    Raises:
        ReaderGoneError: when nobody reads stdout any more.
        OSError: when stdout does not take it; the text is on stderr then.
    """
    failure = _put(sys.stdout, text)
    if isinstance(failure, BrokenPipeError):
        raise ReaderGoneError
    if failure is not None:
        tell(text)
        reason = getattr(failure, "strerror", None) or failure
        raise OSError(f"cannot print the result: {reason}; it stands above, on stderr")


def settle() -> OSError | None:
    """Flush stdout at the end, so that the interpreter has no trouble with it; return what went wrong."""
    failure: OSError | None = None
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except ValueError:  # it is closed
            pass
        except OSError as error:
            failure = failure or (error if stream is sys.stdout else None)
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return failure


@contextmanager
def claimed_stdout() -> Iterator[BinaryIO]:
    """Stdout as a binary file for one writer alone; what others print there meanwhile goes to stderr.

    Raises:
        ValueError: when stdout is a terminal or closed.
    """
    if sys.stdout is None or sys.stdout.closed:
        raise ValueError("-o - writes the video to stdout, which is closed; name a file instead")
    if sys.stdout.isatty():
        raise ValueError(
            "-o - writes the video to stdout, which is a terminal here; pipe it into a player or a file, "
            "as in 'pyrf generate PROMPT -o - | ffplay -', or name a file"
        )
    number, text = sys.stdout.fileno(), sys.stdout
    text.flush()
    with os.fdopen(os.dup(number), "wb", buffering=0) as binary:
        os.dup2(2, number)
        sys.stdout = sys.stderr
        try:
            yield binary
        finally:
            sys.stdout = text
            os.dup2(binary.fileno(), number)


def _put(stream: TextIO | IO[str] | None, text: str) -> OSError | ValueError | None:
    """Print a line at once; return what kept it from being printed."""
    if stream is None:
        return OSError("it is closed")
    try:
        try:
            stream.write(f"{text}\n")
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (OSError, ValueError) as error:
        return error
    return None
