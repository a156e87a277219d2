"""How `pyrf train` is called."""

from __future__ import annotations

import pytest

from pyrf import cli


@pytest.mark.parametrize("options", [["--dry-run"], ["--out", "x"]])
def test_a_stage_that_is_not_there_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "tiny", "--stage", "codec", "--stage", "nope", *options]) == 2
    assert "the recipe has no stage 'nope'; its stages are codec, " in capsys.readouterr().err
