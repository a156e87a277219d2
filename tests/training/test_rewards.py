"""The older paths of scores lead to the present ones, with a warning."""

import importlib

import pytest

from pyrf.evaluation.scores import motion, score_file


@pytest.mark.parametrize(
    ("older", "name", "present"),
    [
        ("pyrf.training.rewards.motion", "MotionReward", motion.MotionScore),
        ("pyrf.training.rewards.score", "score_video", score_file.score_video),
    ],
)
def test_older_paths_lead_on(older: str, name: str, present: object) -> None:
    with pytest.warns(DeprecationWarning, match="is now pyrf.evaluation.scores"):
        module = importlib.reload(importlib.import_module(older))
    assert getattr(module, name) is present
