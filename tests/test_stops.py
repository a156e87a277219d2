"""Signals that stop a command: polite, held for what is short, and at once the third time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.signals import hear_signals

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
BEGIN = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pyrf import stops
from pyrf.partial import Partial
stops.catch()
def say(text): print(text, flush=True)
def hear(): os.kill(os.getpid(), NUMBER)
""".strip()


def run(number: int, code: str, folder: Path = Path(), before: str = "") -> tuple[int, list[str], str]:
    program = before + BEGIN.replace("NUMBER", str(int(number))) + "\n" + code
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=folder, preexec_fn=hear_signals
    )
    return result.returncode, result.stdout.split(), result.stderr


@pytest.mark.parametrize("number", CODES)
def test_a_signal_is_an_exception_with_the_shell_s_code(number: int) -> None:
    code, out, err = run(number, "try: hear()\nexcept stops.Stopped as s: say(s.code); sys.exit(s.code)")
    assert (code, out, err) == (CODES[signal.Signals(number)], [str(code)], "")


@pytest.mark.parametrize("number", CODES)
def test_what_is_short_is_finished_first(number: int) -> None:
    program = """
try:
    with stops.held():
        hear(); hear(); say("finished")
    say("never")
except stops.Stopped: say("stopped")
"""
    assert run(number, program)[1] == ["finished", "stopped"]


@pytest.mark.parametrize("number", CODES)
def test_the_third_ends_at_once_and_removes_what_is_under_way(tmp_path: Path, number: int) -> None:
    program = """
Partial("out.mp4"); Partial("frames", folder=True)
with stops.held():
    hear(); hear(); hear(); say("never")
"""
    code, out, err = run(number, program, tmp_path)
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    assert (code, out, err) == (CODES[signal.Signals(number)], [], f"stopped by {name}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", CODES)
def test_while_a_module_is_loaded_nothing_can_make_another_error_of_it(tmp_path: Path, number: int) -> None:
    (tmp_path / "slow.py").write_text(
        "import __main__\ntry: __main__.hear()\nexcept BaseException: raise ImportError('no array')\n"
    )
    code, out, err = run(number, "sys.path.insert(0, '.')\nimport slow", tmp_path)
    assert (code, out) == (CODES[signal.Signals(number)], [])
    assert err.startswith("stopped by ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", CODES)
def test_a_signal_at_the_very_end_changes_nothing(number: int) -> None:
    late = "import atexit; atexit.register(hear)\n"
    code, out, err = run(number, late + "stops.ending(7)\nsys.exit(7)")
    assert (code, out, err) == (7, [], "")


@pytest.mark.parametrize("number", CODES)
def test_what_our_parent_ignores_stays_ignored(number: int) -> None:
    """As SIGHUP under nohup, and SIGINT of a script's background jobs."""
    ignore = f"import signal as s; ignored = s.signal(s.Signals({int(number)}), s.SIG_IGN)\n"
    program = BEGIN.replace("signal.signal(signal.SIGINT, signal.default_int_handler)\n", "")
    program = ignore + program.replace("NUMBER", str(int(number))) + "\nhear(); say('going on')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.strip()) == (0, "going on")


def test_in_somebody_s_own_program_ctrl_c_waits_too() -> None:
    """And it never ends that program at once, however often it comes."""
    program = """
try:
    with stops.held():
        for _ in range(5): hear()
        say("finished")
    say("never")
except KeyboardInterrupt: say("stopped")
say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    begin = BEGIN.replace("stops.catch()\n", "").replace("NUMBER", str(int(signal.SIGINT)))
    result = subprocess.run(
        [sys.executable, "-c", f"{begin}\n{program}"], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == ["finished", "stopped", "True"]


def test_in_other_threads_nothing_is_held_back() -> None:
    program = """
import threading
def work():
    with stops.held(): entered.set(); done.wait(60)
entered, done = threading.Event(), threading.Event()
threading.Thread(target=work, daemon=True).start(); entered.wait(60)
try: hear(); say("never")
except stops.Stopped: say("stopped"); done.set()
"""
    assert run(signal.SIGTERM, program)[1] == ["stopped"]
