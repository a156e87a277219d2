"""Signals that stop a command: it ends with a line and the code that shells expect, and leaves no rubbish.

The first one raises `Stopped` where the program is, so that each block tidies up. While a file is being
finished, which takes little time, they wait. The third one ends the process at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pyrf.partial import remove_living

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
PATIENCE = 2
"""Signals that are taken politely."""


class Stopped(SystemExit):
    """A signal asks the program to stop.

    Attributes:
        code: the exit code that says so, as a shell reports it for a process that a signal ended.
    """

    code: int

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {NAMES[signal.Signals(number)]}")
        self.code = 128 + number


class _State:
    count = 0
    held = False
    waiting: int | None = None
    ending: int | None = None
    """The exit code, once nothing is left to do."""


_state = _State()


def heard() -> list[signal.Signals]:
    """The signals that stop a program, but for those that our parent ignores, as SIGHUP under nohup."""
    return [number for number in NAMES if signal.getsignal(number) != signal.SIG_IGN]


def catch() -> None:
    """Take the signals from here on; those that our parent ignores stay ignored."""
    for number in heard():
        with suppress(ValueError):  # not in the main thread
            signal.signal(number, _take)
    atexit.register(_ignore)  # the first registered is the last called


def ending(code: int) -> None:
    """All is done but the interpreter's own end: a signal now changes nothing but makes it quick."""
    _state.ending = code


@contextmanager
def held() -> Iterator[None]:
    """Let signals wait until the block ends, for what is short and must not be cut.

    Where `catch` was not called, this holds Ctrl-C. In other threads, which hear no signals, it does nothing.
    """
    if _state.held or threading.current_thread() is not threading.main_thread():
        yield
        return
    theirs = signal.getsignal(signal.SIGINT)
    if theirs is signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)
    _state.held = True
    try:
        yield
    finally:
        _state.held, number, _state.waiting = False, _state.waiting, None
        if theirs is signal.default_int_handler:
            signal.signal(signal.SIGINT, theirs)
    if number is not None and theirs is signal.default_int_handler:
        raise KeyboardInterrupt
    if number is not None:
        raise Stopped(number)


def _ignore() -> None:
    """The interpreter would put back what kills it, and another exit code with it."""
    for number in NAMES:
        with suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    _state.waiting = number


def _take(number: int, frame: FrameType | None) -> None:
    _state.count += 1
    if _state.ending is not None:
        os._exit(_state.ending)
    if _state.count > PATIENCE or _imports(frame):
        _leave(number)
    if _state.held:
        _state.waiting = number
        return
    raise Stopped(number)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being loaded: extension modules make other errors of an exception there."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave(number: int) -> None:
    remove_living()
    with suppress(OSError):  # print might be what was interrupted
        os.write(2, f"{Stopped(number)}\n".encode())
    os._exit(Stopped(number).code)
