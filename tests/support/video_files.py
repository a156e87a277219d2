"""A clip that survives H.264, and what a file holds."""

from pathlib import Path

import av
import numpy as np

from pyrf.video.writer import Frames


def ramp() -> Frames:
    """20 frames of 32 x 48: a ramp, smooth enough to survive H.264, brighter with time."""
    t, y, x = np.mgrid[0:20, 0:32, 0:48]
    return np.stack([40 + 4 * x, 60 + 4 * y, 20 + 8 * t], axis=-1).astype(np.uint8)


def decode(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
