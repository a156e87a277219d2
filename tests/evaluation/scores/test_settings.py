"""Combinations, scores by their settings, and the scores of a file."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from pyrf.evaluation.scores.calibrate_motion import speed_open_scenes
from pyrf.evaluation.scores.combine import CombinedScore
from pyrf.evaluation.scores.motion import MotionScore
from pyrf.evaluation.scores.protocol import ScoreError
from pyrf.evaluation.scores.score_file import main, score_video
from pyrf.evaluation.scores.settings import ScoreSettings, load_score
from pyrf.video import Video


class Fixed:
    """A score with given values."""

    def __init__(self, **scores):
        self.names = tuple(scores)
        self.scores = {name: torch.tensor(score) for name, score in scores.items()}

    def __call__(self, frames, prompts):
        return self.scores


def settings(**given) -> ScoreSettings:
    return TypeAdapter(ScoreSettings).validate_python(given)


def true_clip(speed=1.2):
    return dataclasses.replace(speed_open_scenes(1, "file")[0], speed=speed).render(0, 33)


def test_a_combination_is_the_weighted_sum() -> None:
    combined = CombinedScore(
        [Fixed(a=[1.0, 2.0, 3.0], b=[0.0, math.nan, 1.0]), Fixed(c=[5.0, 5.0, math.nan])],
        {"a": 2.0, "c": -1.0},
    )
    scores = combined(torch.empty(0), [])
    assert combined.names == tuple(scores) == ("a", "b", "c", "reward")
    assert scores["reward"][:2].tolist() == [-3.0, -1.0]  # a NaN in b, which has no weight, does not matter
    assert scores["reward"][2].isnan()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "needs weights"),
        ({"a": 1.0, "x": 1.0}, "no score 'x'"),
        ({"a": 0.0}, "weight of a must be finite and not zero"),
        ({"a": math.inf}, "weight of a must be finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message) -> None:
    with pytest.raises(ScoreError, match=message):
        CombinedScore([Fixed(a=[1.0])], weights)


def test_two_parts_with_one_name_are_refused() -> None:
    with pytest.raises(ScoreError, match="more than one part has a score 'a'"):
        CombinedScore([Fixed(a=[1.0]), Fixed(a=[1.0])], {"a": 1.0})


def test_settings_state_a_score() -> None:
    frames, prompts = torch.from_numpy(true_clip()[None]), ["a"]
    assert load_score(settings(kind="motion"))(frames, prompts) == MotionScore()(frames, prompts)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "motion", "speed": 2},
        {"kind": "optical_flow"},
        {"kind": "motion", "score": "MQ"},
        {"kind": "video_align", "checkpoint": "a"},
        {"kind": "video_align", "checkpoint": "a", "base": "b", "dtype": "float16"},
        {"kind": "combined", "rewards": [], "weights": {"motion": 1}},
        {"kind": "combined", "rewards": [{"kind": "motion", "typo": 1}], "weights": {"motion": 1}},
    ],
)
def test_wrong_settings_are_refused(given) -> None:
    with pytest.raises(ValidationError):
        settings(**given)


def test_a_missing_checkpoint_is_named(tmp_path) -> None:
    with pytest.raises(ScoreError, match=r"nowhere/model_config.json: no such file"):
        load_score(settings(kind="video_align", checkpoint=tmp_path / "nowhere", base=tmp_path))


def test_a_file_is_scored_as_its_frames(tmp_path, capsys) -> None:
    """Within what the codec costs; still clips score far below."""
    moving, still = tmp_path / "moving.mp4", tmp_path / "still.mp4"
    Video(true_clip(), fps=16).save(moving)
    Video(np.repeat(true_clip()[:1], 33, axis=0), fps=16).save(still)
    score = MotionScore()
    expected = score(torch.from_numpy(true_clip()[None]), ["a"])["motion"].item()
    assert score_video(moving, "a", score)["motion"] == pytest.approx(expected, abs=0.2)
    assert score_video(still, "a", score)["motion"] < expected - 1.5
    assert main([str(moving), "--prompt", "a"]) == 0
    assert "motion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("kind: motion\ntypo: 1", "score.yaml: motion: unknown key 'typo'"),
        ("{", "cannot read"),
        (None, "cannot read"),
    ],
)
def test_a_bad_file_of_settings_exits_2(tmp_path, capsys, yaml, message) -> None:
    path = tmp_path / "score.yaml"
    if yaml is not None:
        path.write_text(yaml)
    assert main(["x.mp4", "--prompt", "a", "--settings", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_missing_video_exits_2(tmp_path, capsys) -> None:
    assert main([str(tmp_path / "x.mp4"), "--prompt", "a"]) == 2
    assert "cannot read" in capsys.readouterr().err
