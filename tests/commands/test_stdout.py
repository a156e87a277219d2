"""`pyrf generate -o -`: the video alone on stdout, and readers that go; and a stdout that takes no name."""

import io
import json
import os
import pty
import subprocess
from pathlib import Path

import av
import pytest

import pyrf
from pyrf import cli
from tests.support.command_line import PROMPT, TIMEOUT, command, shape_of


def test_a_video_on_stdout_is_all_that_is_there(tmp_path: Path, random_bundle: Path) -> None:
    arguments = command("generate", PROMPT, "-o", "-", "--seconds=1.5", "--at=.6:b", "--model", random_bundle)
    result = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr.splitlines()[-1].startswith(b"stdout: 24 frames, 1.50 s of video; ")
    with av.open(io.BytesIO(result.stdout), "r") as container:
        assert len(list(container.decode(video=0))) == 24
        made = json.loads(container.metadata["comment"])
    assert made.pop("pyrf") == pyrf.__version__
    assert made == {
        "prompt": PROMPT,
        "seed": 0,
        "model": random_bundle.name,  # not its path, which is the user's own matter
        "timeline": {"0:01.3125": "b"},
    }
    assert list(tmp_path.iterdir()) == []


def test_a_player_that_is_closed_ends_the_video(random_bundle: Path) -> None:
    arguments = command("generate", PROMPT, "-o", "-", "--seconds=9999", "--model", random_bundle)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(8)[4:] == b"ftyp"
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(TIMEOUT) == 141
    assert err.splitlines()[-1] == b"stopped: whoever read the output has gone"


def test_a_terminal_gets_no_video(random_bundle: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = command("generate", PROMPT, "-o", "-", "--model", random_bundle)
    result = subprocess.run(arguments, stdout=theirs, stderr=subprocess.PIPE, timeout=TIMEOUT)
    os.close(theirs)
    os.close(ours)
    assert result.returncode == 2
    assert b"error: -o - writes the video to stdout, which is a terminal here; pipe it into" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "tiny", "--out", "-"],
        ["train", "tiny", "--out", "-"],
        ["eval", "--sheet", "-"],
        ["eval", "study", "--out", "-"],
        ["eval", "study", "--out", "x", "--page", "-"],
    ],
)
def test_other_commands_make_nothing_of_a_dash(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    assert f"{arguments[-2]} - is no name; this command writes to a place on disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_video_is_made_though_its_name_cannot_be_printed(tmp_path: Path, random_bundle: Path) -> None:
    output = tmp_path / "\u2192.mp4"
    arguments = command("generate", PROMPT, "-o", output, "--seconds=.5", "--model", random_bundle)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    with Path("/dev/full").open("w") as full:
        for stdout in (subprocess.PIPE, full):
            result = subprocess.run(arguments, stdout=stdout, stderr=subprocess.PIPE, env=environment)
            assert result.returncode == 0, result.stderr
            told = result.stderr if stdout is full else result.stdout
            assert told.splitlines()[-1].startswith(str(tmp_path).encode() + b"/\\u2192.mp4: 8 frames")
            assert shape_of(output)[0] == 8
