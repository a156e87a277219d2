"""The camera's score pays for how far the camera of the valley goes, and for nothing else."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.evaluation.scores.calibrate_camera import calibrate
from pyrf.evaluation.scores.camera import CameraScore
from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.evaluation.scores.protocol import ScoreError
from pyrf.training.stages.reward import load_reward
from pyrf.worlds.valley.camera import camera_velocity
from pyrf.worlds.valley.world import Valley
from pyrf.worlds.world import Frames
from tests.evaluation.scores.test_settings import settings

pytestmark = pytest.mark.long

FRAMES = 33


def clip(speed: float, seed: int = 0) -> Frames:
    scene = Valley().draw(random.Random(seed), open_speed=True)
    scene.velocity = speed
    return scene.render(0, FRAMES)


def motion(frames: Frames) -> float:
    return float(CameraScore()(torch.from_numpy(frames)[None], ["a"])["motion"])


@pytest.mark.parametrize("seed", range(2))
def test_it_rises_with_the_speed_either_way(seed: int) -> None:
    scores = [motion(clip(speed, seed)) for speed in (0.0, 0.6, 1.5, 3.5)]
    assert all(more > less + 0.4 for less, more in pairwise(scores))
    assert motion(clip(-3.5, seed)) == pytest.approx(scores[-1], abs=0.2)
    assert scores[0] < -1


def test_what_does_not_go_on_pays_no_more_than_a_still_clip() -> None:
    still, rng = clip(0.0), np.random.default_rng(0)
    fakes = {
        "noise": rng.integers(0, 256, still.shape, np.uint8),
        "grain": np.clip(still + rng.normal(0, 60, still.shape), 0, 255).astype(np.uint8),
        "flicker": np.clip(still * (1 + 0.3 * (np.arange(FRAMES) % 2))[:, None, None, None], 0, 255),
        "fade": still * np.linspace(1, 0.3, FRAMES)[:, None, None, None],
        "flat": np.full_like(still, 90),
        "a scene a frame": np.concatenate([clip(3.0, seed)[:1] for seed in range(FRAMES)]),
    }
    paid = {name: motion(frames.astype(np.uint8)) for name, frames in fakes.items()}
    assert {name: value for name, value in paid.items() if value > motion(still) + 0.1} == {}


def test_a_soft_clip_whose_details_flicker_is_paid_for_its_motion() -> None:
    """Students draw such clips: the ground goes on, and what stands on it is drawn anew in every chunk."""
    rng = np.random.default_rng(0)

    def drawn_softly(frames: Frames) -> Frames:
        small = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        soft = F.interpolate(F.avg_pool2d(small, 4), scale_factor=4, mode="bilinear")
        grain = torch.from_numpy(rng.normal(0, 1, (FRAMES, 3, 24, 40))).float()
        flickering = soft + 50 * F.interpolate(grain, scale_factor=8, mode="bilinear")
        return flickering.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()

    for seed in range(3):
        moving = drawn_softly(clip(3.0, seed))
        assert camera_velocity(torch.from_numpy(moving))[1] < 0.6
        assert motion(moving) > motion(drawn_softly(clip(0.0, seed))) + 1


def test_fresh_clips_have_the_mean_and_spread_that_are_stored(tmp_path: Path) -> None:
    fresh, stored = calibrate(tmp_path / "camera.json", count=25), CameraScore().normaliser
    assert Normaliser.load(tmp_path / "camera.json") == fresh
    (mean, std), (stored_mean, stored_std) = fresh.stats["motion"], stored.stats["motion"]
    assert mean == pytest.approx(stored_mean, abs=0.3)
    assert std == pytest.approx(stored_std, rel=0.35)


def test_a_recipe_states_it() -> None:
    frames: Tensor = torch.from_numpy(clip(2.0))[None]
    reward = load_reward(settings(kind="camera"))
    assert torch.equal(reward(frames, ["a"]), CameraScore()(frames, ["a"])["motion"])


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 8, 192, 320, 3), "at least 9 frames"), ((1, 9, 208, 320, 3), "valley, 320x192; got 320x208")],
)
def test_clips_of_other_sizes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        CameraScore()(torch.zeros(shape, dtype=torch.uint8), ["a"])
