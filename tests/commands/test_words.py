"""`pyrf words`, and what `pyrf generate` says of a prompt."""

from pathlib import Path

import pytest

from pyrf.cli import run


def test_the_default_is_the_valley(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYRF_MODEL")
    assert run(["words"]) == 0
    assert "192 x 320" in capsys.readouterr().out


def test_it_lists_what_the_small_model_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["words"]) == 0
    out = capsys.readouterr().out
    known, _, unlearned = out.partition("Reads, and has not learned")
    assert {"circle", "bounces", "grey"} <= set(known.split())
    assert {"star", "orbits", "spins"} <= set(unlearned.split())
    assert "64 x 96" in out
    assert "It does not count" in out
    assert "shape: circle, square, triangle" in out
    assert "a blue square bounces (seed 0)" in out


def test_it_checks_a_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["words", "a gray circle"]) == 0
    assert "'gray' (near: 'grey')" in capsys.readouterr().out
    assert run(["words", "a grey circle"]) == 0
    assert capsys.readouterr().out == "the model knows all words of this prompt\n"


def test_a_model_without_a_card(random_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for prompt in ([], ["a cat"]):
        assert run(["words", *prompt, "--model", str(random_bundle)]) == 0
        assert capsys.readouterr().out == "this model does not say which words it knows\n"


def test_generate_warns_once_per_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seconds", "2", "--at", "1:a dark circle", "--width", "48", "--height", "32"]
    assert run(["generate", "a pink circle", "-o", str(tmp_path / "x.png"), *options]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.split("'")[1] for line in lines[:2]] == ["pink", "dark"]
    assert "not of 32 x 48" in lines[2]
    assert len(lines) == 3
    assert run(["generate", "a red circle", "-o", str(tmp_path / "y.png"), "--seconds", "0.1"]) == 0
    assert "warning" not in capsys.readouterr().err
