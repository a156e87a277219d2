"""Child processes that hear the signals which stop a program, whatever the tests were started by."""

from __future__ import annotations

import signal


def hear_signals() -> None:
    """For `preexec_fn`: a background job of a script ignores Ctrl-C, one below nohup SIGHUP, and so do children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
