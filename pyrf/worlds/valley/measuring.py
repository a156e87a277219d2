"""How long streams of the valley move and last, and which clips are broken, as the detector sees it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pyrf.worlds.valley.attributes import FPS
from pyrf.worlds.valley.detector import Detection, detect
from pyrf.worlds.world import Frames

WINDOW = 2 * FPS
"""Frames of a window in which a stream is measured."""
PLACE = ("time", "land", "season", "weather")
"""What stays as it is while the camera goes, and what the detector reads most surely."""
SURE_OF_PLACE = 0.9
"""Mean sureness of `PLACE` below which a clip shows no valley; true clips have 1.00, the least .89."""
SURE_OF_CAMERA = 0.15
"""Sureness of the camera below which frames do not go on from each other; true clips have .9, the least .25,
and noise .1 at most."""
CUT = 8.0
"""Levels by which a frame differs more from the one before than the median does, from which on it is a cut.
True clips have .3 at most, two scenes of one prompt 13 at least, and seams between a student's chunks 5."""


def measure(video: Frames) -> dict[str, float]:
    """How a long stream moves and lasts, over its windows of 2 s.

    dynamic     pixels per second that the camera moves, as the nearest ground shows it, the mean
    drift       standard deviation of the quality, in points: how sure the detector is of the place
    permanence  share of windows that are not broken and show the time, land, season and weather of the first

    Args:
        video: uint8 [T, 192, 320, 3], of one window at least.
    """
    whole = len(video) // WINDOW * WINDOW
    windows = video[:whole].reshape(-1, WINDOW, *video.shape[1:])
    seen = [detect(window) for window in windows]
    place = [tuple(getattr(d, name) for name in PLACE) for d in seen]
    lasts = [not _is_broken(w, d) and there == place[0] for w, d, there in zip(windows, seen, place)]
    return {
        "dynamic": float(np.mean([abs(d.speed) for d in seen])),
        "drift": 100 * float(np.std([sureness(d) for d in seen])),
        "permanence": float(np.mean(lasts)),
    }


def is_broken(clip: Frames) -> bool:
    """Whether a clip, uint8 [T, 192, 320, 3], shows no valley, is cut, or does not go on from frame to frame.

    Clips of what moves otherwise than asked are not broken.
    """
    return _is_broken(clip, detect(clip))


def sureness(seen: Detection) -> float:
    """How sure the detector is of the place, 0..1."""
    return float(np.mean([seen.confidence[name] for name in PLACE]))


def _is_broken(clip: Frames, seen: Detection) -> bool:
    differences = np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(clip)])
    unsure = seen.confidence["camera"] < SURE_OF_CAMERA or sureness(seen) < SURE_OF_PLACE
    return bool(unsure or differences.max() - np.median(differences) > CUT)
