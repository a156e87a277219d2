"""The `pyrf` command itself: its help, and errors in how it is called."""

import subprocess
import sys

import pytest

import pyrf
from pyrf import cli


def test_help_and_version_need_no_torch() -> None:
    code = (
        "import sys\nfrom pyrf.cli import run\n"
        "for line in (['--help'], ['generate', '--help'], ['--version'], []):\n"
        "    assert run(line) == 0\n"
        "print('heavy:', *(m for m in ('torch', 'numpy', 'av', 'transformers') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pyrf {pyrf.__version__}" in result.stdout
    assert "--at" in result.stdout
    assert result.stdout.strip().endswith("heavy:")


def test_help_that_is_named_is_the_command_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, name in ((["generate"], "pyrf generate"), (["eval", "study"], "pyrf eval study")):
        assert cli.run(arguments) == 2
        assert f"(see {name} --help)" in capsys.readouterr().err


def test_command_without_arguments_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["generate"]) == 2
    assert cli.run(["dance"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "dance" in err
