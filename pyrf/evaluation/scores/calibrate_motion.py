"""Makes `motion.json`: the motion score's mean and std over true clips whose captions leave speed open.

    python -m pyrf.evaluation.scores.calibrate_motion

Weights exp(motion / b) then compare clips by how they move among what the captions allow. Still scenes are
left out: there, speed is not open.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch

from pyrf.evaluation.scores.calibration import NUM_FRAMES, print_stats, save_stats
from pyrf.evaluation.scores.motion import raw_scores
from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.worlds.shapes.scenes import Scene
from pyrf.worlds.shapes.world import ShapesWorld

NORMALISED = ("motion", "magnitude")
"""The other two are shares of 0 to 1, and 1 for nearly all true clips."""
NUM_CLIPS = 2000
MODULE = "pyrf.evaluation.scores.calibrate_motion"


def speed_open_scenes(count: int, seed: str) -> list[Scene]:
    """Scenes of the shapes world that move, with captions that name no speed."""
    rng, world = random.Random(seed), ShapesWorld()
    return [world.draw(rng, open_speed=True) for _ in range(count)]


def calibrate(path: Path, count: int = NUM_CLIPS) -> Normaliser:
    """Score `count` true clips, write their mean and std to `path`."""
    parts = [raw_scores(scene.render(0, NUM_FRAMES)[None]) for scene in speed_open_scenes(count, "calibrate")]
    scores = {name: torch.cat([part[name] for part in parts]) for name in NORMALISED}
    return save_stats(path, scores, module=MODULE)


if __name__ == "__main__":
    print_stats(calibrate(Path(__file__).with_name("motion.json")))
