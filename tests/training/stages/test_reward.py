"""The reward is one of the scores, or a combination's weighted sum."""

from typing import Any

import torch
from pydantic import TypeAdapter

from pyrf.evaluation.scores.calibrate_motion import speed_open_scenes
from pyrf.evaluation.scores.motion import MotionScore
from pyrf.evaluation.scores.settings import ScoreSettings
from pyrf.training.stages.reward import load_reward


def settings(**given: Any) -> ScoreSettings:
    return TypeAdapter[ScoreSettings](ScoreSettings).validate_python(given)


def test_a_recipe_states_a_reward() -> None:
    clip = speed_open_scenes(1, "file")[0].render(0, 33)
    frames, prompts = torch.from_numpy(clip[None]), ["a"]
    scores = MotionScore()(frames, prompts)
    combined = settings(
        kind="combined", rewards=[{"kind": "motion"}], weights={"motion": 1.0, "permanence": 0.5}
    )
    assert load_reward(settings(kind="motion"))(frames, prompts) == scores["motion"]
    assert load_reward(settings(kind="motion", score="magnitude"))(frames, prompts) == scores["magnitude"]
    assert load_reward(combined)(frames, prompts) == scores["motion"] + 0.5 * scores["permanence"]
