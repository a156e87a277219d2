"""`pyrf serve` as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.running import TIMEOUT
from tests.support.signals import hear_signals

MAIN = "from pyrf.cli import main; main()"


@contextmanager
def serving(
    *options: str, prelude: str = "", stderr: Any = subprocess.PIPE, port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process that is ready, and its URL.

    Args:
        options: of `pyrf serve`.
        prelude: Python that runs before it.
        stderr: where its log goes.
    """
    with starting(*options, prelude=prelude, stderr=stderr, port=port) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at " in line, process.communicate()[1]
        yield process, line.split()[-1]


@contextmanager
def stopping_well(*options: str) -> Iterator[str]:
    """What a server says when it is ready. Afterwards SIGTERM ends it without a fault.

    Its log is this process's, so that no pipe of it fills.
    """
    with starting("--log-level", "warning", *options, stderr=None) as process:
        assert process.stdout is not None
        yield process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


@contextmanager
def starting(
    *options: str, prelude: str = "", stderr: Any = subprocess.PIPE, port: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """The same, but not ready yet."""
    command = [sys.executable, "-c", f"{prelude}\n{MAIN}", "serve", "--port", str(port), "--threads", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, *options], stdout=pipe, stderr=stderr, text=True, preexec_fn=hear_signals
    ) as process:
        try:
            yield process
        finally:
            process.kill()
