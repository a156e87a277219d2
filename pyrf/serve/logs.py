"""Structured logs: one JSON object per line, on stderr, which nobody has to read for the server to go on."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from typing import Any

from pyrf.serve.envelope import current_request

LONGEST_TEXT = 2_000
"""Characters of a message or a value; of a traceback four times as many."""
LINES_WAITING = 1_000
"""Lines that wait for a reader that is slower than the server; further ones are dropped."""
ALIKE_AT_ONCE = 100
"""Lines of one message that are written in a row of `ALIKE_S` seconds."""
ALIKE_S = 10.0
MESSAGES_COUNTED = 1_000
"""Messages of which lines are counted."""
LAST_S = 1.0
"""Seconds that the last lines have when the process ends."""

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """A record as JSON: time, level, logger, message, and whatever `extra` holds. Long texts are cut."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _short(record.getMessage()),
            **{name: _short(value) for name, value in vars(record).items() if name not in _PLAIN},
        }
        if request := current_request.get():
            values.setdefault("request", request)
        if record.exc_info:
            # The end of a traceback says what happened.
            values["exception"] = self.formatException(record.exc_info)[-4 * LONGEST_TEXT :]
        return json.dumps(values, default=lambda value: _short(str(value)))


def _short(value: Any) -> Any:
    if isinstance(value, list | tuple | dict | set) and len(str(value)) > LONGEST_TEXT:
        value = str(value)
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}... ({len(value)} characters)"
    return value


class StderrHandler(QueueHandler):
    """Writes lines from a thread of its own. Whoever logs never waits, whatever becomes of stderr.

    Too many lines of one message, and lines that nobody takes in time, are left out and counted. The next
    line of that message that is written says how many there were, as `left_out`.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._lines: queue.Queue[bytes] = queue.Queue(LINES_WAITING)
        super().__init__(self._lines)
        self._descriptor = _stderr() if descriptor is None else descriptor
        self.dropped = 0
        self._alike: dict[tuple[str, str], tuple[float, int]] = {}
        self._writer = threading.Thread(target=self._write, name="pyrf-log", daemon=True)
        self._writer.start()

    def prepare(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode() + b"\n"

    def emit(self, record: logging.LogRecord) -> None:
        key = record.name, str(record.msg)
        since, count = self._alike.get(key, (record.created, 0))
        if record.created - since > ALIKE_S:
            if count > ALIKE_AT_ONCE:
                record.left_out = count - ALIKE_AT_ONCE
            since, count = record.created, 0
        self._alike.pop(key, None)
        self._alike[key] = since, count + 1
        if len(self._alike) > MESSAGES_COUNTED:
            del self._alike[next(iter(self._alike))]
        if count >= ALIKE_AT_ONCE:
            self.dropped += 1
        else:
            super().emit(record)

    def enqueue(self, record: Any) -> None:
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # its name in logging
        self.dropped += 1  # what cannot be formatted; logging's own way would write to stderr at once

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                # Not by `sys.stderr`: a write that never ends would keep its lock, and the process alive.
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:  # nobody will read it: a closed pipe, a full disk
                self.dropped += 1
            self._lines.task_done()

    def flush(self) -> None:
        """Give the lines that wait a moment to be written."""
        until = time.monotonic() + LAST_S
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)

    def close(self) -> None:
        self.flush()
        super().close()


def _stderr() -> int:
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return 2


def flush_logs() -> None:
    """Give the lines that wait a moment to be written, before the process ends."""
    for handler in _handlers():
        handler.flush()


def lines_dropped() -> int:
    """Lines that were left out so far."""
    return sum(handler.dropped for handler in _handlers())


def _handlers() -> list[StderrHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, StderrHandler)]


def log_config(level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"()": StderrHandler, "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"pyrf": {"level": level.upper()}, "uvicorn": {"level": "WARNING"}},
    }
