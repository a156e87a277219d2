"""A clip that survives H.264, and what a file holds."""

from pathlib import Path

import av
import numpy as np

from pyrf.video.filters import to_rgb
from pyrf.video.writer import Frames


def ramp() -> Frames:
    """20 frames of 32 x 48: a ramp, smooth enough to survive H.264, brighter with time."""
    t, y, x = np.mgrid[0:20, 0:32, 0:48]
    return np.stack([40 + 4 * x, 60 + 4 * y, 20 + 8 * t], axis=-1).astype(np.uint8)


def decode(path: Path) -> Frames:
    """All frames, by the tags of the file; older PyAVs convert BT.709 wrongly by themselves."""
    pictures = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            graph = to_rgb(frame, alpha=False)
            graph.push(frame)
            pictures.append(graph.pull().to_ndarray())
    return np.stack(pictures)
