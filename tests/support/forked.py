"""Ranks that are forked: a new process that imports torch takes seconds, and each test has several."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any, TextIO

import pytest

from pyrf import cli
from pyrf.backends.torch.parallel import spawned, worker

FORK = get_context("fork")
TIMEOUT_S = 300
"""Seconds for what should come at once; a loaded machine may take long."""


class ForkedRank:
    """In the place of `subprocess.Popen` where ranks are started."""

    def __init__(self, command: list[str], *, pass_fds: list[int], **_: Any) -> None:
        assert "pyrf.backends.torch.parallel.worker" in command
        self._process = FORK.Process(target=_be_a_rank, args=pass_fds, daemon=True)
        self._process.start()
        self.pid, self.kill = self._process.pid, self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("a rank", timeout or 0.0)
        return self.poll()


def _be_a_rank(descriptor: int) -> None:
    os._exit(worker.main(descriptor))


def fork_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ranks be forked from here on; nothing of theirs is to be imported by each of them."""
    importlib.import_module("pyrf.backends.torch.parallel.member")
    subprocesses = SimpleNamespace(**{**vars(subprocess), "Popen": ForkedRank})
    monkeypatch.setattr(spawned, "subprocess", subprocesses)


class ForkedCommand:
    """`pyrf` in a fork of this process.

    Attributes:
        process: it.
        told: what it writes to stderr.
    """

    def __init__(self, *arguments: str, env: dict[str, str]) -> None:
        reading, writing = os.pipe()
        self.process = FORK.Process(target=_run, args=(arguments, env, writing))
        self.process.start()
        os.close(writing)
        self.told: TextIO = os.fdopen(reading)


def _run(arguments: tuple[str, ...], env: dict[str, str], stderr: int) -> None:
    os.environ |= env
    os.dup2(stderr, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = ["pyrf", *arguments]
    cli.main()


def end_of(command: ForkedCommand) -> tuple[int | None, str]:
    """The exit code, and what was told until then."""
    told = command.told.read()
    command.process.join(TIMEOUT_S)
    return command.process.exitcode, told


@contextmanager
def ranks(*arguments: str, count: int = 2) -> Iterator[list[ForkedCommand]]:
    """A command as torchrun starts it, several times, without its agent, which takes seconds to import."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    commands = [
        ForkedCommand(*arguments, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    try:
        yield commands
    finally:
        for command in commands:
            command.process.kill()
            command.process.join()
