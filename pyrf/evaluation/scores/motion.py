"""A motion score without a network: how fast things move, if they are things and do move.

Dense optical flow alone pays for flicker, noise and objects that jump. So the speed is multiplied by two
gates, each 1 for true motion and 0 for what only changes:

    motion = log(1 + magnitude / SPEED_SCALE) * coherence * permanence

- magnitude: the length of the flow over a quarter of a second where the picture changes, mean over time, in
  picture heights per second;
- coherence: (a) the flow, followed to where it ends, goes on as it was: with m = max(|f|, |f'|), the mean of
  f.f' / m over that of m. Noise, jitter and jumps point elsewhere each time, so that their products cancel,
  and what shakes in place has turned round. (b) The way from frame to frame is no longer than the way over
  the quarter second;
- permanence: what moves is neither made nor lost. (a) The frames' colour histograms stay: the least cost of
  turning one frame's colours into another's (Wasserstein-1) as a share of the change between the frames,
  a frame and a second apart; it is 0 for pixels that only change places and 1 for a fade, a blink or a
  brightness flicker. (b) Following the flow finds the same colour: the warp's residual as a share of the
  change.

Known limits: an object that leaves the picture for good counts as lost while it goes; a flat shape that spins
in place earns next to nothing; a small thing that moves beside a large still one is paid for its own speed.

The flow is DIS (Kroeger et al., ECCV 2016), ultrafast preset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.evaluation.scores.protocol import Scores, as_scores, check_clips
from pyrf.extras import needs

FPS = 16
"""Frames per second of Wan's and the shapes world's videos."""
MIN_FRAMES = 9
MIN_SIZE = 32
"""Pixels; DIS looks at patches of 8 pixels on a pyramid."""
WORKING_SIZE = 64
"""Larger frames are shrunk until their shorter side has as many pixels."""
SPEED_SCALE = 0.125
"""Heights per second; half a pixel per frame at 64 rows. Below, the score is near linear in speed."""

GRID = 2
"""Every second pixel of a row and a column is looked at; the flow itself is coarser than that."""
BORDER = 4
"""Pixels at each edge that are left out, and so are objects on their way out or in."""
NOISE = 6.0
"""Of 255: change that does not count, so that grain and a codec's noise are no motion."""
STILL = 0.01
"""Mean change of a frame, of 255, below which the frame counts as still."""
QUARTER = 4
"""Frames that the flow spans: a quarter of a second, and one latent frame. Codecs draw the frames of a latent
frame unevenly, so that true motion comes in jerks from frame to frame."""
STEP = 2
"""Frames from one flow to the next."""
LAGS = (1, FPS)
"""Frames between those whose histograms are compared; clipped to the clip's length."""

# A gate rises from 0 to 1 between these. True clips reach the upper end but for the slowest, fakes stay
# below the lower end: see the tests, which are the evidence.
COURSE_GATE = (0.15, 0.5)
STRAIGHT_GATE = (0.2, 0.6)
HISTOGRAM_GATE = (0.3, 0.8)
WARP_GATE = (0.4, 0.75)

Frames = NDArray[np.uint8]
Array = NDArray[np.float32]


def _cv2() -> Any:
    with needs("train", "the motion score"):
        import cv2
    return cv2


@contextmanager
def _one_thread(cv2: Any) -> Iterator[None]:
    """DIS cuts the picture into one stripe a thread, so its result depends on their number."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


@dataclass(frozen=True)
class Terms:
    """The terms of one clip, before normalisation. See the module."""

    magnitude: float
    coherence: float
    permanence: float

    @property
    def motion(self) -> float:
        return float(np.log1p(self.magnitude / SPEED_SCALE)) * self.coherence * self.permanence


class MotionScore:
    """Scores "motion", "magnitude", "coherence" and "permanence"; prompts are not looked at.

    Motion and magnitude have mean 0 and std 1 over true clips; the two gates are shares of 0 to 1.

    A call needs some 7 ms per clip of 33 frames of 64 x 96 on one core (`benchmarks/optical_flow.py`).

    Args:
        normaliser: by default that of true clips of the shapes world whose captions leave the speed open
            (`motion.json`, made by `python -m pyrf.evaluation.scores.calibrate_motion`).

    Raises:
        MissingExtraError: when OpenCV is not installed.
    """

    names = ("motion", "magnitude", "coherence", "permanence")

    def __init__(self, normaliser: Normaliser | None = None) -> None:
        _cv2()
        stored = resources.files("pyrf.evaluation.scores") / "motion.json"
        self.normaliser = normaliser or Normaliser.load(stored)

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        """See `Score`. Clips must have at least 9 frames of 32 x 32."""
        check_clips(frames, prompts, min_frames=MIN_FRAMES, min_size=MIN_SIZE)
        return self.normaliser(raw_scores(frames.cpu().numpy()))


def raw_scores(clips: Frames) -> Scores:
    """The four scores of clips uint8 [B, T, H, W, 3], not normalised."""
    with _one_thread(_cv2()):
        terms = [motion_terms(clip) for clip in clips]
    return as_scores({name: [getattr(t, name) for t in terms] for name in MotionScore.names})


def motion_terms(clip: Frames) -> Terms:
    """The terms of one clip, uint8 [T, H, W, 3]."""
    clip = _shrink(clip)
    picture = _contrast(clip)
    begin, end = picture[:-QUARTER:STEP], picture[QUARTER::STEP]
    flow = _flow(begin, end)
    target = _grid(picture) + flow[:, ::GRID, ::GRID]
    change = _change(begin, end) * _inside(target, picture.shape[1:])
    speed = _speed(flow, change) / QUARTER
    path = _speed(_flow(picture[:-1], picture[1:]), _change(picture[:-1], picture[1:]))
    course = _ramp(_course(flow, target, change), COURSE_GATE)
    straight = _ramp(speed / (path + 1e-6), STRAIGHT_GATE)
    explained = _ramp(1 - _residual(begin, end, target, change), WARP_GATE)
    conserved = _ramp(1 - _colour_loss(clip), HISTOGRAM_GATE)
    return Terms(
        magnitude=speed * FPS / min(picture.shape[1:]),
        coherence=course * straight,
        permanence=explained * conserved,
    )


def _shrink(clip: Frames) -> Frames:
    cv2 = _cv2()
    height, width = clip.shape[1:3]
    scale = WORKING_SIZE / min(height, width)
    if scale >= 1:
        return clip
    size = round(width * scale), round(height * scale)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in clip])


def _contrast(clip: Frames) -> Frames:
    """Grey pictures in which what changes stands out: uint8 [T, H, W].

    Red on a grey of equal brightness is invisible to luminance. So the grey axis is the main direction of
    the colours' departures from their mean over time.
    """
    sample = clip[:, ::GRID, ::GRID].reshape(len(clip), -1, 3).astype(np.float32)
    departures = (sample - sample.mean(0)).reshape(-1, 3)
    axis = np.linalg.eigh(departures.T @ departures)[1][:, -1]
    values = sample.reshape(-1, 3) @ axis.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    gain = 255 / max(high - low, 64)  # a faint picture stays faint, or its noise would be blown up
    pixels = clip.reshape(-1, clip.shape[2], 3)
    return _cv2().transform(pixels, np.array([[*(axis * gain), -low * gain]])).reshape(clip.shape[:3])


def _flow(begin: Frames, end: Frames) -> Array:
    """Flow from each picture of `begin` to that of `end`, pixels (x, y): float32 [T, H, W, 2]."""
    cv2 = _cv2()
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    return np.stack([dis.calc(now, later, None) for now, later in zip(begin, end)])


def _grid(picture: Frames) -> Array:
    """The pixels that are looked at, (x, y): float32 [h, w, 2]."""
    height, width = picture.shape[1:]
    return np.stack(np.meshgrid(np.arange(0, width, GRID), np.arange(0, height, GRID)), -1).astype(np.float32)


def _change(begin: Frames, end: Frames) -> Array:
    """How much each looked-at pixel changes beyond noise: float32 [T, h, w]."""
    difference = _cv2().absdiff(_rows(begin[:, ::GRID, ::GRID]), _rows(end[:, ::GRID, ::GRID]))
    change = np.maximum(difference.astype(np.float32) - NOISE, 0)
    return change.reshape(len(begin), -1, len(range(0, begin.shape[2], GRID)))


def _rows(pictures: Frames) -> Frames:
    return np.ascontiguousarray(pictures).reshape(len(pictures), -1)


def _speed(flow: Array, change: Array) -> float:
    """Length of the flow where the picture changes, mean over the frames."""
    sampled = flow[:, ::GRID, ::GRID]
    length = np.sqrt(_dot(sampled, sampled))
    return float(((change * length).mean((1, 2)) / (change.mean((1, 2)) + STILL)).mean())


def _residual(begin: Frames, end: Frames, target: Array, change: Array) -> float:
    """Share of the change that is left when the flow is followed."""
    now = begin[:, ::GRID, ::GRID].astype(np.float32)
    left = np.maximum(np.abs(_follow(end, target) - now) - NOISE, 0)
    return float(np.minimum(left, change).mean() / (change.mean() + STILL))


def _follow(pictures: NDArray[Any], target: Array) -> Array:
    """Bilinear samples of pictures [T, H, W(, C)] at target [T, h, w, 2]: float32 [T, h, w(, C)]."""
    cv2 = _cv2()
    found = [
        cv2.remap(picture, points, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for picture, points in zip(pictures, target)
    ]
    return np.stack(found).astype(np.float32, copy=False)


def _inside(target: Array, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether the flow ends within the picture's border, so that it can be followed on."""
    height, width = size
    x, y = target[..., 0], target[..., 1]
    return (x >= BORDER) & (x < width - BORDER) & (y >= BORDER) & (y < height - BORDER)


def _course(flow: Array, target: Array, change: Array) -> float:
    """How far things keep their course: flow followed to where it ends is the same there.

    At most 1; 0 or less for what goes nowhere in particular.
    """
    ahead = QUARTER // STEP
    before, change = flow[:-ahead, ::GRID, ::GRID], change[:-ahead]
    after = _follow(flow[ahead:], target[:-ahead])
    longer = np.sqrt(np.maximum(_dot(before, before), _dot(after, after)))
    kept = change * _dot(before, after) / (longer + 1e-3)
    return float(kept.mean() / ((change * longer).mean() + 1e-4))


def _dot(a: Array, b: Array) -> Array:
    # a sum over an axis of two is many times slower in numpy
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def _colour_loss(clip: Frames) -> float:
    """Change of the colour histograms as a share of the pixels' change, 0 to 1.

    The Wasserstein-1 distance of two frames' histograms is the least mean change that could turn the one
    into the other, so it is never above the change that did.
    """
    cv2 = _cv2()
    histograms = np.array(
        [
            [cv2.calcHist([frame], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
            for frame in clip
        ]
    )
    shares = histograms.cumsum(-1) / (clip.shape[1] * clip.shape[2])  # [T, 3, 256]
    rows = clip.reshape(len(clip), -1)
    loss, total = 0.0, 0.0
    for lag in (min(lag, len(clip) - 1) for lag in LAGS):
        loss += float(np.abs(shares[lag:] - shares[:-lag]).sum(-1).mean())
        total += float(cv2.absdiff(rows[lag:], rows[:-lag]).mean())
    return loss / (total + STILL)


def _ramp(value: float, gate: tuple[float, float]) -> float:
    low, high = gate
    return min(max((value - low) / (high - low), 0.0), 1.0)
