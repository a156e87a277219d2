"""Checks that all scores share, and normalisation."""

import json
import math

import pytest
import torch

from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.evaluation.scores.protocol import ScoreError, as_scores, check_clips


@pytest.mark.parametrize(
    ("frames", "prompts", "message"),
    [
        ([[1, 2]], ["a"], "a torch tensor, got list"),
        (torch.zeros(1, 9, 32, 32, 3), ["a"], "got torch.float32"),
        (torch.zeros(9, 32, 32, 3, dtype=torch.uint8), ["a"], r"got shape \[9, 32, 32, 3\]"),
        (torch.zeros(1, 9, 3, 32, 32, dtype=torch.uint8), ["a"], r"got shape \[1, 9, 3, 32, 32\]"),
        (torch.zeros(1, 9, 32, 32, 3, dtype=torch.uint8), "a", "a single string"),
        (torch.zeros(1, 9, 32, 32, 3, dtype=torch.uint8), [], "1 clip and 0 prompts"),
        (torch.zeros(0, 9, 32, 32, 3, dtype=torch.uint8), [], "0 clips and 0 prompts"),
        (torch.zeros(2, 9, 32, 32, 3, dtype=torch.uint8), ["a"], "1 prompt for 2 clips"),
        (torch.zeros(1, 8, 32, 32, 3, dtype=torch.uint8), ["a"], "at least 9 frames for this score, got 8"),
        (torch.zeros(1, 9, 32, 31, 3, dtype=torch.uint8), ["a"], "got 32 x 31"),
    ],
)
def test_what_cannot_be_scored_is_refused(frames, prompts, message) -> None:
    with pytest.raises(ScoreError, match=message):
        check_clips(frames, prompts, min_frames=9, min_size=32)


def test_scores_that_are_not_finite_become_nan() -> None:
    scores = as_scores({"a": [1.0, math.inf, 2.0, 3.0], "b": torch.tensor([1.0, 1.0, math.nan, -math.inf])})
    assert all(score.dtype == torch.float32 for score in scores.values())
    assert scores["a"].isnan().tolist() == [False, True, False, False]
    assert scores["b"].isnan().tolist() == [False, False, True, True]


def test_normaliser_leaves_what_it_does_not_know() -> None:
    normalised = Normaliser({"a": (1.0, 2.0)})(
        {"a": torch.tensor([5.0, math.nan]), "b": torch.tensor([0.5, 1])}
    )
    assert normalised["a"][0] == 2
    assert normalised["a"][1].isnan()
    assert normalised["b"].tolist() == [0.5, 1]


def test_statistics_survive_the_file(tmp_path) -> None:
    Normaliser({"a": (0.1, 2.5)}).save(tmp_path / "stats.json", command="make it")
    assert Normaliser.load(tmp_path / "stats.json") == Normaliser({"a": (0.1, 2.5)})
    assert json.loads((tmp_path / "stats.json").read_text())["command"] == "make it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "is not JSON"),
        ("[]", "must hold"),
        ('{"scores": {"a": {"mean": 1}}}', "must hold"),
        ('{"scores": {"a": {"mean": 1, "std": 0}}}', "score a: mean must be finite and std positive"),
        ('{"scores": {"a": {"mean": NaN, "std": 1}}}', "score a"),
    ],
)
def test_a_bad_file_of_statistics_is_named(tmp_path, text, message) -> None:
    path = tmp_path / "stats.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ScoreError, match=message):
        Normaliser.load(path)
