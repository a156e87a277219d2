"""Frames one by one, as they are needed: of a file, of a pipe, or of a camera."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, BinaryIO

import numpy as np

from pyrf.video.decoded import DecodedVideo
from pyrf.video.fitting import fitted
from pyrf.video.reader import at_rate, existing, opened, refusals
from pyrf.video.writer import Frames, PathLike

CAMERAS = {"linux": ("v4l2", "/dev/video0"), "darwin": ("avfoundation", "default")}
"""Of a system: what FFmpeg calls its cameras' interface, and the first of them."""
CAMERA_FPS = 30


def iter_frames(path: PathLike, *, height: int, width: int, fps: float) -> Iterator[Frames]:
    """The frames of a picture or video, as `pyrf.video.read_frames` gives them, without keeping them.

    Args:
        path, height, width, fps: as for `pyrf.video.read_frames`.

    Yields:
        uint8 [height, width, 3].

    Raises:
        ValueError: as `pyrf.video.read_frames` does; of a damaged file when its bad part is reached.
    """
    place = existing(path)
    with refusals(path), opened(place, fps) as video:
        for frame, count in at_rate(video.shown, fps):
            picture = fitted(*video.picture(frame), height, width, "crop")
            for _ in range(count):
                yield picture


def iter_pipe(pipe: BinaryIO, *, height: int, width: int, fps: float) -> Iterator[Frames]:
    """`iter_frames` of a container that comes through a pipe, such as Matroska or MPEG-TS.

    Raises:
        ValueError: when it is none, or one whose index comes at its end.
    """
    import av

    with refusals("stdin"):
        container = av.open(_Forward(pipe), mode="r")
        with closing(DecodedVideo("stdin", fps, container)) as video:
            for frame, count in at_rate(video, fps):
                picture = fitted(*video.picture(frame), height, width, "crop")
                for _ in range(count):
                    yield picture


def iter_camera(device: str | None = None) -> Iterator[Frames]:
    """The frames of a camera in its own size, for as long as it is there.

    Args:
        device: as FFmpeg names it, such as /dev/video2; None: the first.

    Yields:
        uint8 [H, W, 3].

    Raises:
        ValueError: when there is none, or no other program lets go of it.
    """
    import av

    form, first = CAMERAS.get(sys.platform, (None, ""))
    if form is None:
        raise ValueError(f"cameras are not read on {sys.platform}; pipe a container and give --source -")
    try:
        container = av.open(device or first, format=form, options={"framerate": str(CAMERA_FPS)})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot open the camera {device or first} ({form}): {reason}") from error
    with refusals("the camera"), closing(DecodedVideo("the camera", CAMERA_FPS, container)) as video:
        for shown in video:
            yield np.asarray(video.picture(shown.frame)[0])


class _Forward:
    """A pipe as FFmpeg is to see it: nothing but `read`, lest it should seek."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def read(self, size: int) -> bytes:
        return bytes(self._pipe.read(size))
