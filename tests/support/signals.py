"""Child processes that hear the signals which stop a program, whatever the tests were started by."""

from __future__ import annotations

import signal


def hear_signals() -> None:
    """For `preexec_fn`: jobs of a script ignore Ctrl-C, those below nohup SIGHUP; children do so too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
