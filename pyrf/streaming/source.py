"""What a stream continues from: an image or a video, as whole chunks of frames.

What each of its chunks starts from is a `pyrf.loop.sampler.ChunkStart`.
"""

from __future__ import annotations

import numpy as np

from pyrf.streaming.model import StreamModel
from pyrf.video.levels import as_levels
from pyrf.video.writer import Frames


def whole_chunks(
    model: StreamModel, image: Frames | None, video: Frames | None, height: int, width: int
) -> Frames | None:
    """The frames that a stream continues, [T, H, W, 3]; None where nothing is given.

    Args:
        model: whose chunks they fill.
        image: [H, W, 3], held for a chunk: uint8, uint16, or floats of 0..1.
        video: [T, H, W, 3] of the same kinds; whole chunks of its end are used, as many as the window holds;
            a shorter one is held at its first frame.
        height, width: of the stream's frames in pixels.

    Raises:
        ValueError: when both are given, or one has the wrong kind or size.
    """
    if image is not None and video is not None:
        raise ValueError("give an image or a video to start from, not both")
    name, given = ("image", image) if video is None else ("video", video)
    if given is None:
        return None
    frames = as_levels(np.asarray(given), name)
    axes = "[H, W, 3]" if name == "image" else "[T, H, W, 3]"
    if frames.ndim != axes.count(",") + 1 or not frames.size:
        raise ValueError(f"{name} must be {axes}, got {list(frames.shape)}")
    if frames.shape[-3:] != (height, width, 3):
        raise ValueError(
            f"{name} must have the size of the stream, {height} x {width} x 3, "
            f"got {' x '.join(map(str, frames.shape[-3:]))}; scale it first"
        )
    frames = frames.reshape(-1, height, width, 3)
    chunks = max(1, model.num_chunks_of(len(frames) + 1) - 1)  # as many whole ones as there are
    chunks = min(chunks, model.stream_config.slots)  # and as the window holds
    wanted = model.num_frames_of(chunks)
    held = np.repeat(frames[:1], max(0, wanted - len(frames)), axis=0)
    return np.concatenate([held, frames[-wanted:]])
