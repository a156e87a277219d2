"""A polite end: SIGTERM is noted, and the loop stops at the next step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Whether a stop was asked for.

    Unlike `threading.Event` it has no lock. The main thread may hold such a lock when its handler runs,
    and then it would wait for itself.
    """

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


_active: Stop | None = None


@contextmanager
def noted(then: Callable[[], None] = lambda: None) -> Iterator[Stop]:
    """Note SIGTERM instead of ending by it, and call `then`.

    Inside another `noted` it is noted there, too. Outside the main thread nothing is caught.
    """
    global _active
    outer = _active
    stop = outer or Stop()

    def note(*_: Any) -> None:
        stop.set()
        then()

    catches = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, note) if catches else None
    _active = stop
    try:
        yield stop
    finally:
        _active = outer
        if catches:
            signal.signal(signal.SIGTERM, before)
