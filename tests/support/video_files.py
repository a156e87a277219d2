"""A clip that survives H.264, and what a file holds."""

from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from pyrf.video.filters import to_rgb
from pyrf.video.writer import Frames


def ramp() -> Frames:
    """20 frames of 32 x 48: a ramp, smooth enough to survive H.264, brighter with time."""
    t, y, x = np.mgrid[0:20, 0:32, 0:48]
    return np.stack([40 + 4 * x, 60 + 4 * y, 20 + 8 * t], axis=-1).astype(np.uint8)


def decode(path: Path) -> Frames:
    """All frames, by the tags of the file; older PyAVs convert BT.709 wrongly by themselves.

    FFmpeg does not read animated WebPs, in which a picture may stand for several that differ by little.
    """
    if path.suffix == ".webp":
        return _decode_webp(path, fps=16)
    pictures = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            graph = to_rgb(frame, alpha=False)
            graph.push(frame)
            pictures.append(graph.pull().to_ndarray())
    return np.stack(pictures)


def _decode_webp(path: Path, fps: float) -> Frames:
    pictures: list[Frames] = []
    seconds = 0.0
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            frame.load()
            seconds += frame.info["duration"] / 1000
            pictures += [np.asarray(frame.convert("RGB"))] * (round(seconds * fps) - len(pictures))
    return np.stack(pictures)
