"""Makes `camera.json`: the camera score's mean and std over true clips whose captions leave the speed open.

python -m pyrf.evaluation.scores.calibrate_camera
"""

from __future__ import annotations

import random
from pathlib import Path

import torch

from pyrf.evaluation.scores.calibration import NUM_FRAMES, print_stats, save_stats
from pyrf.evaluation.scores.camera import STATS, raw_motion
from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.worlds.valley.world import Valley

NUM_CLIPS = 300
LATEST = 600
"""Frames of a scene before which a clip begins."""
MODULE = "pyrf.evaluation.scores.calibrate_camera"


def calibrate(path: Path, count: int = NUM_CLIPS) -> Normaliser:
    """Score `count` true clips, write their mean and std to `path`."""
    rng, world = random.Random("calibrate"), Valley()
    scores = []
    for _ in range(count):
        clip = world.draw(rng, open_speed=True).render(rng.randrange(LATEST), NUM_FRAMES)
        scores.append(raw_motion(torch.from_numpy(clip)))
    found = torch.tensor(scores, dtype=torch.float64, device="cpu")
    return save_stats(path, {"motion": found}, module=MODULE)


if __name__ == "__main__":
    print_stats(calibrate(Path(__file__).with_name(STATS)))
