"""One who follows a page: runs its shell lines in a folder, in order.

Commands of pyrf run in this process; those that go on until they are stopped, and ranks, run in forks of it.
Lines with pipes and programs of others are a shell's.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from pyrf import cli
from tests.support.forked import ForkedCommand, end_of, ranks
from tests.support.receivers import found
from tests.support.signals import hear_signals

ROOT = Path(__file__).parents[2]
SERVER = "http://127.0.0.1:8000"
TIMEOUT = 300
"""Seconds for what should come at once; a loaded machine may take long."""
ASSIGNMENT = re.compile(r"[A-Z_]+=")
READY = {
    ("pyrf", "serve"): re.compile(r"pyrf serves .+ at (\S+)"),
    ("pyrf", "osc"): re.compile(r"listening for OSC on 127\.0\.0\.1:(\d+)"),
    ("pyrf", "eval", "ab"): re.compile(r"rater 1: (\S+)"),
}
"""Commands without an end, and what they say when they are ready."""
STOPPED = {signal.SIGTERM: (0, 143), signal.SIGINT: (0, 130)}
"""What a stopped command may return."""


class Reader:
    """Runs lines; a server lives until the next one is started, or the page ends.

    Args:
        folder: where the reader is.
        changes: patterns, and what stands in their place, in all lines.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._patch, self._changes = monkeypatch, changes
        self._server: ForkedCommand | None = None
        self._url = SERVER
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("PYRF_SERVE_PORT", "0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_server()

    def run(self, line: str) -> None:
        """Run a line, which must succeed; what is not installed skips the test."""
        for pattern, other in (*self._changes, (re.escape(SERVER), self._url)):
            line = re.sub(pattern, other, line)
        words = shlex.split(line)
        with pytest.MonkeyPatch.context() as patch:
            while ASSIGNMENT.match(words[0]):
                patch.setenv(*words.pop(0).split("=", 1))
            self._run(words, line)

    def _run(self, words: list[str], line: str) -> None:
        program = Path(words[0]).name
        lasting = next((begin for begin in READY if tuple(words[: len(begin)]) == begin), None)
        if "|" in words:
            _shell(line)
        elif lasting:
            self._begin(words, lasting)
        elif program == "pyrf":
            assert cli.run(words[1:]) == 0, line
        elif program == "python":
            self._python(words[1:])
        elif program == "opentelemetry-instrument":
            _serve_by(words)
        elif program == "pytest":
            _collect(words[1:])
        elif program == "torchrun":
            _torchrun(words[1:])
        elif program == "export":
            self._patch.setenv(*words[1].split("=", 1))
        else:
            _shell(line)

    def _begin(self, words: list[str], kind: tuple[str, ...]) -> None:
        """Start what lasts, and wait until it is ready. Servers stay; the others are stopped."""
        serves = kind == ("pyrf", "serve")
        if serves:
            self._end_server()
        command = ForkedCommand(*words[1:], *([] if serves else ["--port", "0"]), env={})
        told = ""
        try:
            while not (ready := READY[kind].search(told)):
                line = command.told.readline()
                assert line, f"{' '.join(words)}: {told}"
                told += line
        except BaseException:
            command.process.kill()
            raise
        if serves:
            self._server, self._url = command, ready[1]
        elif kind == ("pyrf", "osc"):
            from pythonosc.udp_client import SimpleUDPClient

            SimpleUDPClient("127.0.0.1", int(ready[1])).send_message("/pyrf/stop", [])
            code, rest = end_of(command)
            assert code == 0, told + rest
        else:
            _stop(command, signal.SIGINT)

    def _end_server(self) -> None:
        if self._server:
            _stop(self._server, signal.SIGTERM)
        self._server, self._url = None, SERVER

    def _python(self, arguments: list[str]) -> None:
        """A module in this process; a file in one of its own, beside which it may import others."""
        if arguments[0] != "-m":
            _finish([sys.executable, str(ROOT / arguments[0]), *arguments[1:]])
            return
        self._patch.setattr(sys, "argv", arguments[1:])
        try:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if ended.code:
                raise AssertionError(f"{arguments}: {ended.code}") from ended


def _stop(command: ForkedCommand, number: signal.Signals) -> None:
    try:
        assert command.process.pid is not None
        os.kill(command.process.pid, number)
        code, told = end_of(command)
        assert code in STOPPED[number], told
    finally:
        command.process.kill()


def _serve_by(words: list[str]) -> None:
    """A server that another program starts; it ends once it is ready."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, preexec_fn=hear_signals) as process:
        assert process.stdout is not None
        said = next((line for line in process.stdout if READY["pyrf", "serve"].search(line)), None)
        process.terminate()
    assert (said is not None, process.returncode) == (True, 0), words


def _shell(line: str) -> None:
    for part in line.split(" | "):
        if (program := part.split()[0]) in ("ffmpeg", "ffplay", "nginx", "openssl"):
            found(program)
    _finish(["bash", "-o", "pipefail", "-c", line])


def _collect(arguments: list[str]) -> None:
    """The tests of the suite that a line names are there; they run with it."""
    _finish([sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *arguments], ROOT)


def _finish(command: list[str], folder: Path | None = None) -> None:
    """Run another program, without a window, a sound or a question."""
    silent = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **silent},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def _torchrun(words: list[str]) -> None:
    """The command as torchrun's agent starts it, which itself takes seconds to import."""
    count = int(words[words.index("--nproc-per-node") + 1])
    command = words[words.index("--no-python") + 1 :]
    assert command[0] == "pyrf"
    with ranks(*command[1:], count=count) as started:
        ends = [end_of(one) for one in started]
    assert [code for code, _ in ends] == [0] * count, ends
