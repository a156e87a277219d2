"""How live video in is judged: on results whose answer is known, and on the bundled model."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pyrf import cli
from pyrf.evaluation.restyled import (
    CHANGED,
    CHUNKS,
    StrengthRow,
    correlation,
    judged,
    restyle,
    rows,
    sources,
    table,
)
from pyrf.pipeline import StreamingPipeline
from pyrf.worlds.shapes.world import ShapesWorld

WORLD = ShapesWorld()
FRAMES = 57


def test_each_clip_has_one_change_of_each_attribute() -> None:
    found = list(sources(WORLD, 5))
    assert len(found) == 5
    for prompt, targets in found:
        assert prompt.asks["motion"] != "still"
        for name, target in zip(CHANGED, targets):
            assert [n for n in target.asks if target.asks[n] != prompt.asks[n]] == [name]
    assert found == list(sources(WORLD, 5))


def test_known_results_are_judged_right() -> None:
    """The clip itself follows its source and no prompt; another scene of the prompt does the reverse."""
    prompt, targets = next(sources(WORLD, 1))
    clip = WORLD.scene_for(prompt, random.Random(0)).render(0, FRAMES)
    for name, target in zip(CHANGED, targets):
        same = judged(WORLD, clip, clip, target, name)
        assert (same.is_right, same.kept) == (False, 1.0)
        assert same.correlation == pytest.approx(1)
        assert same.distance == 0
        scene = WORLD.scene_for(target, random.Random(1))
        other = judged(WORLD, clip, scene.render(0, FRAMES), target, name)
        assert other.is_right
        assert other.distance > 1


def test_paths_are_compared_around_their_means() -> None:
    path = np.stack([np.arange(9.0), np.zeros(9)], axis=1)
    assert correlation(path, path + 40) == pytest.approx(1)
    assert correlation(path, -path) == pytest.approx(-1)
    assert correlation(path, path[:, ::-1]) == pytest.approx(0)
    assert correlation(path, np.zeros_like(path)) == 0


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["eval", "source", "--clips=1", "--strength=0"]) == 0
    head, _, row = capsys.readouterr().out.strip().splitlines()
    assert head.startswith("| strength | color |")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "0"
    assert float(cells[-2]) > 0.99  # the path of the source
    assert cli.run(["eval", "source", "--strength=2"]) == 2


def test_a_table_has_a_row_for_each_strength() -> None:
    row = StrengthRow(0.85, dict.fromkeys(CHANGED, 0.5), 0.25, 0.987, 1.26)
    assert table([row]).splitlines()[-1] == "| 0.85 | 50 % | 50 % | 50 % | 50 % | 50 % | 25 % | 0.99 | 1.3 |"


@pytest.mark.slow
def test_the_bundled_model_restyles() -> None:
    """Named attributes change and paths stay, as docs/live-video.md says."""
    pipe = StreamingPipeline.from_pretrained("tiny")
    (row,) = rows(list(restyle(pipe, WORLD, 8, [0.85])))
    assert row.all_right >= 0.9
    assert row.correlation >= 0.9
    assert CHUNKS == 5
