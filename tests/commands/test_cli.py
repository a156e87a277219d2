"""The `pyrf` command itself: its help, and errors in how it is called."""

import subprocess
import sys

import pytest
import torch

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


@pytest.mark.parametrize("options", [["--dry-run"], ["--out", "x"]])
def test_a_stage_that_is_not_there_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "tiny", "--stage", "codec", "--stage", "nope", *options]) == 2
    assert "the recipe has no stage 'nope'; its stages are codec, " in capsys.readouterr().err


def test_threads_are_set_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()

    def load(_: object) -> None:
        raise ValueError(f"loaded with {torch.get_num_threads()} threads")

    monkeypatch.setattr("pyrf.loading.load", load)
    try:
        assert cli.run(["serve", "--port", "0", "--threads", str(threads + 1)]) == 2
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().err == f"error: loaded with {threads + 1} threads\n"
