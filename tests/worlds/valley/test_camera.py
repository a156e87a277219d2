"""The camera's speed is read from pixels, on few frames and on many."""

import random
from dataclasses import replace

import pytest
import torch

from pyrf.worlds.valley.attributes import LANDS
from pyrf.worlds.valley.camera import camera_velocity
from pyrf.worlds.valley.scene import Scene
from pyrf.worlds.valley.world import Valley


@pytest.mark.parametrize("land", LANDS)
@pytest.mark.parametrize(
    ("camera", "speed"), [("right", "slow"), ("left", "fast"), ("still", None), ("left", None)]
)
def test_velocity_of_true_clips(land: str, camera: str, speed: str | None) -> None:
    rng = random.Random(f"{land} {camera} {speed}")
    season = rng.choice(("green", "autumn", "snowy")) if land in ("mountains", "hills") else None
    attributes = replace(Valley().sample(rng), land=land, season=season, camera=camera, speed=speed)
    scene = Scene(attributes, rng)
    clip = torch.from_numpy(scene.render(rng.randrange(1000), 40))
    for frames in (12, 40):
        velocity, sure = camera_velocity(clip[:frames])
        assert velocity == pytest.approx(scene.velocity, abs=0.12)
        assert 0.3 < sure <= 1
