"""What a stream continues from, as whole chunks of frames.

What each of its chunks starts from is a `pyrf.loop.sampler.ChunkStart`.
"""

from __future__ import annotations

import numpy as np

from pyrf.streaming.model import StreamModel
from pyrf.video.levels import as_levels
from pyrf.video.writer import Frames


def whole_chunks(model: StreamModel, video: Frames, height: int, width: int) -> Frames:
    """The frames that a stream continues, [T, H, W, 3].

    Args:
        model: whose chunks they fill.
        video: [T, H, W, 3]: uint8, uint16, or floats of 0..1. Whole chunks of its end are used, as many as
            the window holds; a shorter one is held at its first frame.
        height, width: of the stream's frames in pixels.

    Raises:
        ValueError: when it has the wrong kind or size.
    """
    frames = as_levels(np.asarray(video), "video")
    if frames.ndim != 4 or not frames.size:
        raise ValueError(f"video must be [T, H, W, 3], got {list(frames.shape)}")
    if frames.shape[-3:] != (height, width, 3):
        raise ValueError(
            f"video must have the size of the stream, {height} x {width} x 3, "
            f"got {' x '.join(map(str, frames.shape[-3:]))}; scale it first"
        )
    chunks = max(1, model.num_chunks_of(len(frames) + 1) - 1)  # as many whole ones as there are
    chunks = min(chunks, model.stream_config.slots)  # and as the window holds
    wanted = model.num_frames_of(chunks)
    held = np.repeat(frames[:1], max(0, wanted - len(frames)), axis=0)
    return np.concatenate([held, frames[-wanted:]])
