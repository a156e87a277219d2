"""Makes `camera.json`: the camera score's mean and std over true clips whose captions leave the speed open.

python -m pyrf.evaluation.scores.calibrate_camera
"""

from __future__ import annotations

import random
from pathlib import Path

import torch

from pyrf import printing
from pyrf.evaluation.scores.camera import STATS, raw_motion
from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.worlds.valley.world import Valley

NUM_CLIPS = 300
NUM_FRAMES = 33
LATEST = 600
"""Frames of a scene before which a clip begins."""
COMMAND = "python -m pyrf.evaluation.scores.calibrate_camera"


def calibrate(path: Path, count: int = NUM_CLIPS) -> Normaliser:
    """Score `count` true clips, write their mean and std to `path`."""
    rng, world = random.Random("calibrate"), Valley()
    scores = []
    for _ in range(count):
        clip = world.draw(rng, open_speed=True).render(rng.randrange(LATEST), NUM_FRAMES)
        scores.append(raw_motion(torch.from_numpy(clip)))
    found = torch.tensor(scores, dtype=torch.float64, device="cpu")
    normaliser = Normaliser({"motion": (float(found.mean()), float(found.std()))})
    normaliser.save(path, command=COMMAND, clips=f"{count} clips of {NUM_FRAMES} frames, speed open")
    return normaliser


if __name__ == "__main__":
    for name, (mean, std) in calibrate(Path(__file__).with_name(STATS)).stats.items():
        printing.say(f"{name}: mean {mean:.3f}, std {std:.3f}")
