"""How the process of a server ends: after which signals, and what it says when there is no model."""

from __future__ import annotations

import logging
import os
import signal

from pyrf.serve.logs import flush_logs

logger = logging.getLogger(__name__)

END_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""After the first of them the server ends, after the second at once. Windows has no SIGHUP."""


def end_process() -> None:
    """End now, as if all was well."""
    flush_logs()
    os._exit(0)


def reason(failure: Exception) -> str:
    """Why a model was not loaded, so that it fits in one line; the log of level debug tells where."""
    if isinstance(failure, ValueError | OSError | MemoryError):
        return str(failure) or type(failure).__name__
    logger.debug("the model cannot be loaded", exc_info=failure)
    return f"the model cannot be loaded: {type(failure).__name__}: {failure}"
