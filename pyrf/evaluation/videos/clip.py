"""A video in small: what all measures look at."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrf.video.reader import existing, refusals

ROWS = 128
"""Pixels of the shorter side; larger videos are shrunk to it, so that grain counts little."""
MAX_FRAMES = 16_000
"""Of a video, 1,000 seconds at 16 fps; 1.3 GB at 16:9."""
MIN_FRAMES = 24


class Clip(NamedTuple):
    """A decoded video.

    Attributes:
        frames: uint8 [T, H, W, 3].
        fps: frames per second.
    """

    frames: NDArray[np.uint8]
    fps: float

    @property
    def grey(self) -> NDArray[np.uint8]:
        """Brightness, uint8 [T, H, W]."""
        return self.frames.mean(-1, dtype=np.float32).round().astype(np.uint8)


def read_clip(path: Path) -> Clip:
    """Decode a video, shrunk.

    Raises:
        ValueError: when it cannot be read, or has fewer than MIN_FRAMES frames or more than MAX_FRAMES.
    """
    import av

    frames: list[NDArray[np.uint8]] = []
    with refusals(path), av.open(str(existing(path))) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        scale = min(1.0, ROWS / min(stream.height, stream.width))
        height, width = (max(2, 2 * round(side * scale / 2)) for side in (stream.height, stream.width))
        for frame in container.decode(stream):
            if len(frames) == MAX_FRAMES:
                raise ValueError(f"it has more than {MAX_FRAMES} frames; cut it first")
            small = frame.reformat(width, height, "rgb24", interpolation="AREA")
            frames.append(small.to_ndarray().astype(np.uint8, copy=False))
        fps = float(stream.average_rate or 0)
    if len(frames) < MIN_FRAMES or not fps:
        raise ValueError(f"{path} has {len(frames)} frames at {fps:g} fps; {MIN_FRAMES} frames are needed")
    return Clip(np.stack(frames), fps)
