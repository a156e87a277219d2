"""The measures of a video, each a number with a unit and a curve over time.

- dynamic: 1 where the video moves by VBench's rule, else 0. At 8 frames per second, the mean of the largest
  5 % of the flow must pass 6 pixels per 256 of the shorter side in a quarter of the frames. The flow is
  OpenCV's DIS (Kroeger et al., ECCV 2016) in place of RAFT.
- speed: that mean, in picture heights per second.
- drift: Euclidean distance of the mean colours, and of their deviation, of the first 5 seconds from the last
  5, in levels of 255. Of a video below 10 seconds its halves are taken.
- flicker: mean distance of a pixel from the mean of the frames before and after, in levels. What moves evenly
  has little.
- border: how much more a frame at which a chunk starts differs from the frame before than frames around it
  do: the ratio, median over the borders. 1: borders do not show.
- copying: share of the later frames that are a frame of the first 3 seconds again: nearer to one than a frame
  is to its neighbour. Frozen and looped videos have 1.

Known limits: what moves to and fro, or a small thing on a still ground, comes near its first frames rightly.
Noise raises the flow. New content counts as drift, whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrf.checks import check_whole
from pyrf.evaluation.videos.clip import Clip
from pyrf.extras import needs

Curve = NDArray[np.float64]

DYNAMIC_FPS = 8
LARGEST = 0.05
"""Share of the flow that counts, the largest."""
THRESHOLD = 6 / 256
"""Of the shorter side, per step of 1/8 s."""
END_S = 5.0
FIRST_S = 3.0
LEAST_LEVELS = 1.0
"""A codec changes a still picture by less; differences between frames count as this at least."""
SIDE = 32
"""Pixels of the pictures that are compared with the first ones."""


class Chunks(NamedTuple):
    """How a video was made: frames of its first chunk and of the others; those of pyrf and Wan by default."""

    first: int = 9
    others: int = 12

    def starts(self, num_frames: int) -> list[int]:
        """Frames at which a chunk starts, but the first one."""
        check_whole("frames of the first chunk", self.first)
        check_whole("frames of a chunk", self.others, 3)
        return list(range(self.first, num_frames, self.others))


class Measured(NamedTuple):
    """A measure of a video.

    Attributes:
        value: the number.
        curve: over time, one value per frame or step.
        seconds: between the values of the curve.
        begin: seconds at which the curve begins.
    """

    value: float
    curve: Curve
    seconds: float
    begin: float = 0.0


UNITS = {
    "dynamic": "share",
    "speed": "heights/s",
    "drift": "levels",
    "flicker": "levels",
    "border": "ratio",
    "copying": "share",
    "constancy": "cosine",
}


def measure(clip: Clip, chunks: Chunks) -> dict[str, Measured]:
    """All measures but constancy.

    Raises:
        ValueError: when OpenCV is missing, or the video has no border between chunks.
    """
    grey = clip.grey
    dynamic, speed = _motion(grey, clip.fps)
    return {
        "dynamic": dynamic,
        "speed": speed,
        "drift": _drift(clip),
        "flicker": _flicker(grey, clip.fps),
        "border": _border(grey, clip.fps, chunks.starts(len(grey))),
        "copying": copying(clip),
    }


def _cv2() -> Any:
    with needs("eval", "measuring videos"):
        import cv2
    return cv2


def _motion(grey: NDArray[np.uint8], fps: float) -> tuple[Measured, Measured]:
    cv2 = _cv2()
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    step = max(1, round(fps / DYNAMIC_FPS))
    shown = grey[::step]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the flow depends on their number
    try:
        lengths = [np.hypot(*np.moveaxis(dis.calc(a, b, None), -1, 0)) for a, b in pairwise(shown)]
    finally:
        cv2.setNumThreads(threads)
    count = max(1, round(LARGEST * shown[0].size))
    largest = np.array([np.partition(length.ravel(), -count)[-count:].mean() for length in lengths])
    moving = largest > THRESHOLD * min(shown.shape[1:])
    is_dynamic = bool(moving.sum() >= max(1, round(len(shown) / 4)))
    seconds = step / fps
    speed = largest / shown.shape[1] / seconds
    return (
        Measured(float(is_dynamic), moving.astype(np.float64), seconds),
        Measured(float(speed.mean()), speed.astype(np.float64), seconds),
    )


def _drift(clip: Clip) -> Measured:
    pixels = clip.frames.reshape(len(clip.frames), -1, 3)
    looks = np.concatenate([pixels.mean(1, dtype=np.float64), pixels.std(1, dtype=np.float64)], axis=1)
    count = max(1, min(round(END_S * clip.fps), len(looks) // 2))
    begin = looks[:count].mean(0)
    curve = np.linalg.norm(looks - begin, axis=1)
    return Measured(float(np.linalg.norm(looks[-count:].mean(0) - begin)), curve, 1 / clip.fps)


def _flicker(grey: NDArray[np.uint8], fps: float) -> Measured:
    curve = np.array([np.abs(b - (a + c) / 2).mean() for a, b, c in _triples(grey)])
    return Measured(float(curve.mean()), curve, 1 / fps)


def _triples(grey: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.float32], ...]]:
    frames = (frame.astype(np.float32) for frame in grey)
    a, b = next(frames), next(frames)
    for c in frames:
        yield a, b, c
        a, b = b, c


def _differences(pictures: NDArray[Any]) -> Curve:
    """Mean distance of each picture from the next, in levels: [T, ...] -> [T - 1]."""
    return np.array(
        [np.abs(b.astype(np.float32) - a).mean() for a, b in pairwise(pictures)], dtype=np.float64
    )


def _border(grey: NDArray[np.uint8], fps: float, starts: Sequence[int]) -> Measured:
    found = _differences(grey)
    around = np.array([np.median(found[max(0, i - 4) : i + 5]) for i in range(len(found))])
    curve = np.maximum(found, LEAST_LEVELS) / np.maximum(around, LEAST_LEVELS)
    at = [start - 1 for start in starts if start - 1 < len(curve)]
    if not at:
        raise ValueError(f"a video of {len(grey)} frames has no border between chunks; give their lengths")
    return Measured(float(np.median(curve[at])), curve, 1 / fps)


def copying(clip: Clip) -> Measured:
    """Share of the later frames that are a frame of the first 3 seconds again."""
    cv2 = _cv2()
    small = np.stack([cv2.resize(f, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for f in clip.frames])
    count = min(round(FIRST_S * clip.fps), len(small) // 3)
    first = small[:count].astype(np.float32)
    near = max(float(np.median(_differences(small))), LEAST_LEVELS)
    start = count + count // 2  # what follows the first frames is near to them in any video
    later = small[start:]
    curve = np.array([np.abs(first - frame).mean((1, 2, 3)).min() for frame in later]) / near
    return Measured(float((curve <= 1).mean()), curve, 1 / clip.fps, start / clip.fps)
