"""Signals that stop `pyrf generate`: one line, the signal's code, and what was made is kept if asked for."""

import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.command_line import PROMPT, TIMEOUT, command, shape_of
from tests.support.signals import hear_signals


def has_content(folder: Path) -> bool:
    """Whether a file of the folder has bytes: frames are being written."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size for path in folder.iterdir())
    return False


STOPS = [
    (signal.SIGINT, 130, "Ctrl-C", False),
    (signal.SIGINT, 130, "Ctrl-C", True),
    (signal.SIGTERM, 143, "SIGTERM", True),
    (signal.SIGHUP, 129, "SIGHUP", False),
]


@pytest.mark.parametrize(("number", "code", "name", "keep"), STOPS)
def test_a_signal_ends_with_one_line(
    tmp_path: Path, random_bundle: Path, number: int, code: int, name: str, keep: bool
) -> None:
    arguments: tuple[str | Path, ...] = (
        "generate",
        PROMPT,
        "-o",
        tmp_path / "out.mp4",
        "--seconds",
        "9999",
        "--model",
        random_bundle,
        *(["--keep-partial"] if keep else []),
    )
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_signals,
    ) as process:
        while process.poll() is None and not has_content(tmp_path):
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == code
    assert out == b""
    begun, *_, line = err.decode().splitlines(keepends=True)  # between them, how far it has come
    assert begun == "making 159984 frames\n"
    if keep:
        kept = re.fullmatch(rf"stopped by {name} \((\d+) frames? kept as {tmp_path}/out.mp4\)\n", line)
        assert kept, line
        assert shape_of(tmp_path / "out.mp4")[0] == int(kept.group(1))
    else:
        assert re.fullmatch(
            rf"stopped by {name} after \d+ of 159984 frames; --keep-partial would keep them\n", line
        ), line
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] * keep
