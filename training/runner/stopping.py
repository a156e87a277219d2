"""A polite end: SIGTERM is noted, and the loop stops at the next step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_active: threading.Event | None = None


@contextmanager
def noted(then: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Note SIGTERM in an event instead of ending by it, and call `then`.

    Inside another `noted` the event is that one's. Outside the main thread nothing is caught.
    """
    global _active
    outer = _active
    event = outer or threading.Event()

    def note(*_: Any) -> None:
        event.set()
        then()

    catches = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, note) if catches else None
    _active = event
    try:
        yield event
    finally:
        _active = outer
        if catches:
            signal.signal(signal.SIGTERM, before)
