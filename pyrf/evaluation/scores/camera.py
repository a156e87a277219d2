"""How far the valley's camera goes, as a score.

    motion = log(1 + speed / SPEED_SCALE) * ramp(sureness)

Speed is that of the nearest ground, pixels per frame. The world's own correlation finds it
(`pyrf/worlds/valley/camera.py`), and says how alike the shifted frames are. Noise is not, and earns nothing.

The score for motion of other videos (`motion.py`) does not fit this world. What a camera passes leaves the
picture, which counts as lost there, and the glitter of the sea follows no flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
from torch import Tensor

from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.evaluation.scores.protocol import ScoreError, Scores, as_scores, check_clips
from pyrf.worlds.valley.attributes import HEIGHT, WIDTH
from pyrf.worlds.valley.camera import camera_velocity

SPEED_SCALE = 1.0
"""Pixels per frame; below, the score is near linear in speed."""
SURENESS_GATE = (0.1, 0.25)
"""Sureness at which the factor is 0, and from which it is 1. In clips of 33 frames, those that have nothing
to do with each other have .08 at most, a student's that move as they should .2 to .3, and true ones mostly
more than .7."""
STATS = "camera.json"
MIN_FRAMES = 9


class CameraScore:
    """Score "motion" of clips of the valley, mean 0 and std 1 over true clips; prompts are not looked at.

    Args:
        normaliser: by default that of true clips whose captions leave the speed open (`camera.json`, made by
            `python -m pyrf.evaluation.scores.calibrate_camera`).
    """

    names = ("motion",)

    def __init__(self, normaliser: Normaliser | None = None) -> None:
        self.normaliser = normaliser or Normaliser.load(resources.files("pyrf.evaluation.scores") / STATS)

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        """See `Score`. Clips must have at least 9 frames of the valley's size."""
        check_clips(frames, prompts, min_frames=MIN_FRAMES, min_size=min(HEIGHT, WIDTH))
        if frames.shape[2:4] != (HEIGHT, WIDTH):
            raise ScoreError(
                f"the camera's score is for clips of the valley, {WIDTH}x{HEIGHT}; "
                f"got {frames.shape[3]}x{frames.shape[2]}"
            )
        return self.normaliser(as_scores({"motion": [raw_motion(clip) for clip in frames]}))


def raw_motion(clip: Tensor) -> float:
    """The score of one clip, uint8 [T, H, W, 3], not normalised."""
    velocity, sureness = camera_velocity(clip)
    low, high = SURENESS_GATE
    return float(np.log1p(abs(velocity) / SPEED_SCALE)) * min(max((sureness - low) / (high - low), 0.0), 1.0)
