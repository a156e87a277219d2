"""Logs: bounded in rate, length and number, whatever becomes of whoever reads them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from pyrf.serve.logs import (
    ALIKE_AT_ONCE,
    ALIKE_S,
    LINES_WAITING,
    LONGEST_TEXT,
    MESSAGES_COUNTED,
    JsonFormatter,
    StderrHandler,
)


@contextmanager
def logger_to(descriptor: int) -> Iterator[tuple[logging.Logger, StderrHandler]]:
    handler = StderrHandler(descriptor)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("pyrf.test_logs")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger, handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


@pytest.fixture
def pipe_ends() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def lines(reader: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in os.read(reader, 2**20).splitlines()]


def test_nobody_waits_for_a_reader_that_has_stalled(pipe_ends: tuple[int, int]) -> None:
    with logger_to(pipe_ends[1]) as (logger, handler):
        for i in range(3 * LINES_WAITING):
            logger.warning(f"line {i} " + "x" * 1000)
        handler.close()  # it gives up as well
        assert handler.dropped >= LINES_WAITING
        assert handler._lines.qsize() <= LINES_WAITING
        # Once it is read again, what waited is written whole.
        assert lines(pipe_ends[0])[0]["message"].startswith("line 0 ")
        while handler._lines.qsize():
            os.read(pipe_ends[0], 2**20)


def test_a_closed_pipe_is_no_fault(pipe_ends: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    os.close(pipe_ends[0])
    with logger_to(pipe_ends[1]) as (logger, handler):
        for i in range(10):
            logger.warning("line %d", i)
        handler.flush()
        assert handler.dropped == 10
    assert capfd.readouterr().err == ""


def test_lines_of_one_message_are_limited(pipe_ends: tuple[int, int]) -> None:
    with logger_to(pipe_ends[1]) as (logger, handler):
        for i in range(10 * ALIKE_AT_ONCE):
            logger.warning("address %d does something", i)
        logger.warning("something else")
        handler.flush()
        written = lines(pipe_ends[0])
        assert len(written) == ALIKE_AT_ONCE + 1
        assert handler.dropped == 9 * ALIKE_AT_ONCE
        assert written[-1]["message"] == "something else"
        later = logger.makeRecord(
            logger.name, logging.WARNING, "", 0, "address %d does something", (7,), None
        )
        later.created += ALIKE_S + 1
        handler.handle(later)
        handler.flush()
        (line,) = lines(pipe_ends[0])
        assert (line["message"], line["left_out"]) == ("address 7 does something", 9 * ALIKE_AT_ONCE)


def test_messages_are_counted_in_bounded_memory(pipe_ends: tuple[int, int]) -> None:
    with logger_to(pipe_ends[1]) as (_, handler):
        for i in range(2 * MESSAGES_COUNTED):
            handler.handle(logging.makeLogRecord({"name": "x", "msg": str(i)}))
            handler.flush()
            os.read(pipe_ends[0], 2**16)
        assert len(handler._alike) == MESSAGES_COUNTED


def test_long_texts_are_cut() -> None:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "m" * 10**6, "args": ()})
    record.path = "p" * 10**6
    record.headers = ["h" * 10**6]
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "m" * LONGEST_TEXT + f"... ({10**6} characters)"
    assert len(json.dumps(line)) < 10 * LONGEST_TEXT


def test_what_cannot_be_formatted_is_left_out(
    pipe_ends: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    with logger_to(pipe_ends[1]) as (logger, handler):
        logger.warning("one %d", "two")
        assert handler.dropped == 1
    assert capfd.readouterr().err == ""
