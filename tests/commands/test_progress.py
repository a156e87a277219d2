"""Progress in lines: at the start, every ten seconds, and not at the end, which the command tells itself."""

from __future__ import annotations

import pytest

from pyrf.commands.progress import ProgressLines


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    lines = ProgressLines(800, clock=lambda: now)
    for done in range(12, 801, 12):
        now += 1.5
        lines.reach(done)
    lines.reach(800)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "making 800 frames"
    assert told[1] == "84 of 800 frames (10 %), 8.0 FPS, about 90 s left"
    assert told[2] == "168 of 800 frames (21 %), 8.0 FPS, about 79 s left"
    assert len(told) == 1 + 66 // 7


def test_a_short_run_says_what_it_makes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(1)
    lines.reach(1)
    assert capsys.readouterr().err == "making 1 frame\n"
