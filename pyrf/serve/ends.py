"""How the process of a server ends: in time, at once, and what it says when there is no model."""

from __future__ import annotations

import logging
import os
import signal
import threading

from pyrf.serve.logs import flush_logs

logger = logging.getLogger(__name__)


def end_process() -> None:
    """End now, as if all was well."""
    flush_logs()
    os._exit(0)


def end_within(seconds: float) -> threading.Timer:
    """End after so many seconds, whatever holds the process then, unless the timer is cancelled."""
    timer = threading.Timer(seconds, end_process)
    timer.daemon = True
    timer.start()
    return timer


def end_at_once(number: int) -> None:
    """Let a signal do what it does without us."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def reason(failure: Exception) -> str:
    """Why a model was not loaded, so that it fits in one line; the log of level debug tells where."""
    if isinstance(failure, ValueError | OSError | MemoryError):
        return str(failure) or type(failure).__name__
    logger.debug("the model cannot be loaded", exc_info=failure)
    return f"the model cannot be loaded: {type(failure).__name__}: {failure}"
