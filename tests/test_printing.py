"""What is printed survives every encoding, and a stdout that is full, closed or gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAME = "bl\u00e5 \u2192 \U0001f534 \udcff.mp4"
CALL = "import sys\nfrom pyrf import cli, printing, stops\n{call}\ncli.main()"
SAY = "cli.run = lambda _: printing.say({text!a}) or 0"
DELIVER = "cli._call = lambda _: printing.deliver({text!a}) or 0"
PLAIN = "cli._call = lambda _: print({text!a}) or 0"


def call(program: str, text: str = NAME, **options: Any) -> subprocess.CompletedProcess[bytes]:
    code = CALL.format(call=program.format(text=text))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, "-c", code], timeout=120, check=False, **options)


@pytest.mark.parametrize("program", [SAY, DELIVER, PLAIN])
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp1252:strict", "utf-8:strict", "latin-1"])
def test_every_name_can_be_printed(program: str, encoding: str) -> None:
    result = call(program, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert (result.returncode, result.stderr) == (0, b"")
    told = result.stdout.decode(encoding.partition(":")[0])
    assert told.startswith("bl")
    assert told.endswith("\\udcff.mp4\n")
    assert len(told.splitlines()) == 1


def test_a_remark_goes_to_stderr_where_stdout_is_full_and_nothing_fails() -> None:
    with Path("/dev/full").open("w") as full:
        result = call(SAY, "made", stdout=full)
        assert (result.returncode, result.stderr) == (0, b"made\n")
        result = call(SAY, "made", stdout=full, stderr=full)
        assert result.returncode == 0


def test_a_result_that_cannot_be_printed_is_an_error_and_not_lost() -> None:
    with Path("/dev/full").open("w") as full:
        result = call(DELIVER, "result", stdout=full)
    assert result.returncode == 2
    assert result.stderr == (
        b"result\nerror: cannot print the result: No space left on device; it stands above, on stderr\n"
    )


def test_what_is_printed_otherwise_is_an_error_of_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        result = call(PLAIN, "result", stdout=full)
    assert result.returncode == 2
    assert result.stderr.startswith(b"error: ")
    assert result.stderr.endswith(b"No space left on device\n")
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("program", [SAY, DELIVER, PLAIN])
def test_a_reader_that_has_gone_is_no_traceback(program: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = call(program, "text", stdout=writing)
    os.close(writing)
    assert result.returncode in {SAY: (0,), DELIVER: (141,), PLAIN: (2, 141)}[program]
    assert b"Traceback" not in result.stderr
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_streams_are_never_given_to_a_file(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """Or what a library prints would stand in the middle of a video."""
    program = (
        f"def made(_):\n    import os\n    file = open({str(tmp_path / 'video')!r}, 'wb')\n"
        "    os.write(1, b'noise'); os.write(2, b'noise'); file.write(b'frames'); file.close()\n"
        "    printing.say('made'); printing.tell('told'); return 0\ncli.run = made"
    )

    def close() -> None:
        for number in closed:
            os.close(number)

    result = call(program, preexec_fn=close)
    assert result.returncode == 0
    assert (tmp_path / "video").read_bytes() == b"frames"


def test_stdout_is_for_the_video_alone() -> None:
    program = (
        "def made(_):\n    import os\n    with printing.claimed_stdout() as file:\n"
        "        print('print'); os.write(1, b'noise\\n'); printing.say('said'); file.write(b'frames')\n"
        "    printing.say('after'); return 0\ncli.run = made"
    )
    result = call(program)
    assert (result.returncode, result.stdout) == (0, b"framesafter\n")
    assert sorted(result.stderr.split()) == [b"noise", b"print", b"said"]
