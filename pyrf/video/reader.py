"""Frames out of files: an image or a video, fitted to a size and a rate."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from pyrf.video.writer import Frames, PathLike


def read_frames(path: PathLike, *, height: int, width: int, fps: float, limit: int | None = None) -> Frames:
    """Read an image (one frame) or a video, fitted to a size: scaled to cover it, then cropped evenly.

    Args:
        fps: frames per second of the result; a video of another rate is resampled.
        limit: keep only this many frames, the last ones.

    Returns:
        uint8 [T, height, width, 3].

    Raises:
        ValueError: when the file is missing or holds no picture that can be decoded.
    """
    import av
    from PIL import Image, ImageOps

    if not Path(path).is_file():
        raise ValueError(f"cannot read {path}: there is no such file")
    kept: deque[Frames] = deque(maxlen=limit)
    try:
        for picture, count in _pictures(Path(path), fps):
            frame = np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
            kept.extend(repeat(frame, min(count, limit or count)))
    except (
        # Decoders raise all of these on damaged files.
        av.error.FFmpegError,
        Image.DecompressionBombError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        SyntaxError,
        ValueError,
    ) as error:
        reason = str(error) or "it is damaged"
        raise ValueError(f"cannot read {path} as an image or video: {reason}") from error
    if not kept:
        raise ValueError(f"cannot read {path}: it holds no frames")
    return np.stack(kept)


def _pictures(path: Path, fps: float) -> Iterator[tuple[Any, int]]:
    """RGB Pillow images of a file, each with the number of frames that show it at `fps`."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            # A phone's photo may hold a second picture (MPO); only a real animation is a video.
            if not getattr(image, "is_animated", False) or image.format == "MPO":
                yield ImageOps.exif_transpose(image).convert("RGB"), 1
                return
    except UnidentifiedImageError:
        pass  # a video, for PyAV
    import av

    shown = 0
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        stream = container.streams.video[0]
        for frame, seconds in _timed(container.decode(stream), float(stream.average_rate or fps)):
            count = math.floor(seconds * fps + 1e-3) + 1 - shown
            if count > 0:
                yield frame.to_image(), count
                shown += count


def _timed(frames: Iterator[Any], rate: float) -> Iterator[tuple[Any, float]]:
    """Frames of PyAV with the seconds since the first one; those without a time are `rate` a second."""
    first: float | None = None
    for index, frame in enumerate(frames):
        if frame.time is not None and first is None:
            first = frame.time - index / rate
        yield frame, index / rate if frame.time is None or first is None else frame.time - first
