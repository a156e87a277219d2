"""Reads colour, shape, size, motion and speed of the shapes world back from pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pyrf.worlds.shapes.attributes import BACKGROUNDS, COLORS, HEIGHT, ORBIT_RADIUS, SHAPES, SIZES, WIDTH
from pyrf.worlds.shapes.scenes import signed_distance
from pyrf.worlds.world import Facts

MIN_AREA = 25
"""Pixels; below this a frame holds no object."""
FAST = 1.0
"""Pixels per frame that part slow from fast."""
FAST_SPIN = 0.08
"""Radians per frame that part slow from fast."""
_BRIGHTNESS = (0.7, 0.85, 1.0, 1.15, 1.3)
_SYMMETRY = {"circle": 1, "square": 4, "triangle": 3, "star": 5}
_TEMPLATE_AREA = 200.0
_GRID = np.arange(-16, 17, dtype=np.float32)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Detection:
    """What a clip shows.

    Attributes:
        shape, motion: None when no object is seen in most frames.
        fit: overlap of the object with the best shape template, 0..1.
        speed: median, in pixels per frame; for a spin in radians per frame.
        present: share of frames in which an object is seen.
        jump: largest step of the centre between two frames, pixels.
    """

    color: str
    background: str
    shape: str | None = None
    size: str | None = None
    motion: str | None = None
    fit: float = 0.0
    speed: float = 0.0
    present: float = 0.0
    jump: float = math.inf

    def shows(self, attribute: str, facts: Facts) -> bool:
        """Whether the clip shows the value that `facts` give an attribute; an open speed is always shown."""
        if attribute != "speed":
            return bool(getattr(self, attribute) == facts[attribute])
        threshold = FAST_SPIN if facts["motion"] == "spin" else FAST
        return facts["speed"] is None or (self.speed > threshold) == (facts["speed"] == "fast")


def detect(frames: NDArray[np.uint8]) -> Detection:
    """Read a clip, uint8 [T, 64, 96, 3]; T of 9 or more (motion is surer from 40 on)."""
    labels = _nearest_color(frames)
    counts = [(labels == i).sum() for i in range(len(COLORS))]
    color_index = int(np.argmax(counts))
    ground = [(labels == len(COLORS) + i).sum() for i in range(len(BACKGROUNDS))]
    color, background = list(COLORS)[color_index], list(BACKGROUNDS)[int(np.argmax(ground))]

    mask = labels == color_index
    areas = mask.sum((1, 2))
    present = float((areas >= MIN_AREA).mean())
    if present < 0.7:
        return Detection(color, background, present=present)

    x, y = _track(mask)
    patches = _object_patches(frames, labels, color_index, x, y)
    if len(patches) == 0:
        return Detection(color, background, present=present)
    fits = {shape: _overlap(patches, shape) for shape in SHAPES}
    scores = {shape: float(fit.max(1).mean()) for shape, fit in fits.items()}
    shape = max(scores, key=lambda name: scores[name])
    area = float(np.median(areas[areas >= MIN_AREA]))
    typical = {size: math.pi * radius**2 for size, radius in SIZES.items()}
    border = math.sqrt(typical["small"] * typical["large"])
    motion, speed = _motion(x, y, _rotation(fits[shape], shape) * (len(patches) - 1) / (len(frames) - 1))
    steps = np.hypot(_wrapped(np.diff(x), WIDTH), _wrapped(np.diff(y), HEIGHT))
    return Detection(
        color=color,
        background=background,
        shape=shape,
        size="large" if area > border else "small",
        motion=motion,
        fit=scores[shape],
        speed=speed,
        present=present,
        jump=float(steps.max()),
    )


def path(frames: NDArray[np.uint8]) -> Array:
    """Centre of the object of a clip's commonest colour in each frame, [T, 2] of x and y in pixels.

    It leaves the frame where the object does, and comes back on no other side.
    """
    labels = _nearest_color(frames)
    color_index = int(np.argmax([(labels == i).sum() for i in range(len(COLORS))]))
    x, y = _track(labels == color_index)
    return np.stack([np.unwrap(x, period=WIDTH), np.unwrap(y, period=HEIGHT)], axis=1)


@lru_cache(maxsize=1)
def _color_table() -> NDArray[np.uint8]:
    """Label of the nearest reference colour for RGB cut to 5 bits a channel, [2**15].

    Labels are the shape colours, then the backgrounds, each at several brightnesses.
    """
    shades = [np.minimum(255, np.array(c) * b) for c in BACKGROUNDS.values() for b in _BRIGHTNESS]
    labels = [*range(len(COLORS)), *(len(COLORS) + i for i in range(len(BACKGROUNDS)) for _ in _BRIGHTNESS)]
    palette = np.array([*COLORS.values(), *shades], np.float32)
    levels = np.arange(32) * 8 + 4.0
    cells = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = (palette**2).sum(1) - 2 * cells @ palette.T  # up to a term that all share
    return np.array(labels, np.uint8)[distance.argmin(1)]


def _nearest_color(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red, green, blue = (frames[..., i].astype(np.int32) >> 3 for i in range(3))
    return _color_table()[(red << 10) | (green << 5) | blue]


def _wrapped(difference: Array, period: int) -> Array:
    return (difference + period / 2) % period - period / 2


def _track(mask: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Centre of the object in each frame on the torus: circular mean, then the mean near it."""
    columns, rows = np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5
    turns = np.exp(2j * np.pi * columns / WIDTH), np.exp(2j * np.pi * rows / HEIGHT)
    x = np.angle(mask.sum(1) @ turns[0]) / (2 * np.pi) * WIDTH % WIDTH
    y = np.angle(mask.sum(2) @ turns[1]) / (2 * np.pi) * HEIGHT % HEIGHT
    for _ in range(2):
        dx = _wrapped(columns - x[:, None], WIDTH)
        dy = _wrapped(rows - y[:, None], HEIGHT)
        near = mask & (np.abs(dy) < 24)[:, :, None] & (np.abs(dx) < 24)[:, None, :]
        total = np.maximum(near.sum((1, 2)), 1)
        x = (x + (near.sum(1) * dx).sum(1) / total) % WIDTH
        y = (y + (near.sum(2) * dy).sum(1) / total) % HEIGHT
    return x, y


def _object_patches(
    frames: NDArray[np.uint8], labels: NDArray[np.uint8], color_index: int, x: Array, y: Array
) -> NDArray[np.float32]:
    """Soft object masks [n, 33 * 33] of up to 21 frames, centred and scaled to one area."""
    is_ground = labels >= len(COLORS)
    ground = np.median(frames[is_ground][::97].astype(np.float32), axis=0) if is_ground.any() else np.zeros(3)
    axis = np.array(list(COLORS.values())[color_index], np.float32) - ground
    patches = []
    for i in np.linspace(0, len(frames) - 1, min(len(frames), 21)).astype(int):
        soft = np.clip(((frames[i] - ground) @ axis / (axis @ axis) - 0.3) / 0.4, 0, 1)
        near_x = np.abs(_wrapped(np.arange(WIDTH) + 0.5 - x[i], WIDTH)) < 26
        near_y = np.abs(_wrapped(np.arange(HEIGHT) + 0.5 - y[i], HEIGHT)) < 26
        soft = soft * near_y[:, None] * near_x
        if soft.sum() >= MIN_AREA:
            patches.append(_resample(soft, x[i], y[i], math.sqrt(soft.sum() / _TEMPLATE_AREA)).ravel())
    return np.array(patches, np.float32)


def _resample(image: Array, x: float, y: float, scale: float) -> Array:
    """Bilinear samples of `image` on the torus around (x, y)."""
    columns, rows = x + _GRID * scale - 0.5, y + _GRID * scale - 0.5
    c0, r0 = np.floor(columns).astype(int), np.floor(rows).astype(int)
    fx, fy = columns - c0, (rows - r0)[:, None]
    c0, c1, r0, r1 = c0 % WIDTH, (c0 + 1) % WIDTH, r0 % HEIGHT, (r0 + 1) % HEIGHT
    top = image[np.ix_(r0, c0)] * (1 - fx) + image[np.ix_(r0, c1)] * fx
    bottom = image[np.ix_(r1, c0)] * (1 - fx) + image[np.ix_(r1, c1)] * fx
    return top * (1 - fy) + bottom * fy


@lru_cache(maxsize=len(SHAPES))
def _templates(shape: str) -> NDArray[np.float32]:
    """Soft masks [rotations, 33 * 33] of one shape, about its centroid, all of one area."""
    x, y = np.meshgrid(_GRID, _GRID)
    period = 2 * math.pi / _SYMMETRY[shape]
    count = 1 if shape == "circle" else max(8, round(math.degrees(period) / 9))
    templates = []
    for angle in np.arange(count) / count * period:
        cos, sin = math.cos(angle), math.sin(angle)
        u, v = (cos * x + sin * y).astype(np.float32), (cos * y - sin * x).astype(np.float32)
        radius = 8.0 * math.sqrt(_TEMPLATE_AREA / (signed_distance(shape, u, v, 8.0) < 0).sum())
        templates.append(np.clip(0.5 - signed_distance(shape, u, v, radius), 0, 1).ravel())
    return np.array(templates, np.float32)


def _overlap(patches: NDArray[np.float32], shape: str) -> NDArray[np.float32]:
    """Soft intersection over union of each patch with each rotation of the shape: [n, rotations]."""
    templates = _templates(shape)
    both = np.minimum(patches[:, None], templates).sum(2)
    return both / (np.maximum(patches[:, None], templates).sum(2) + 1e-6)


def _rotation(fits: NDArray[np.float32], shape: str) -> float:
    """Radians turned between two patches on average, from the best rotation of each."""
    if shape == "circle" or len(fits) < 2:
        return 0.0
    best = fits.argmax(1)
    n, rows = fits.shape[1], np.arange(len(fits))
    left, middle, right = fits[rows, best - 1], fits[rows, best], fits[rows, (best + 1) % n]
    peak = np.clip((left - right) / (2 * (left - 2 * middle + right) - 1e-9), -0.5, 0.5)
    turned = np.unwrap((best + peak) / n * 2 * np.pi) / _SYMMETRY[shape]
    return float(abs(turned[-1] - turned[0])) / (len(fits) - 1)


def _motion(x: Array, y: Array, spin: float) -> tuple[str, float]:
    """Name the path and give its speed; `spin` is in radians per frame."""
    x, y = np.unwrap(x, period=WIDTH), np.unwrap(y, period=HEIGHT)
    kernel = np.ones(5) / 5
    x, y = (np.convolve(np.pad(u, 2, mode="edge"), kernel, "valid") for u in (x, y))
    step = np.hypot(x[4::4] - x[:-4:4], y[4::4] - y[:-4:4]) / 4
    speed = float(np.median(step))
    range_x, range_y = float(np.ptp(x)), float(np.ptp(y))
    long, short = max(range_x, range_y), min(range_x, range_y)
    if long < 3.0:
        return ("spin", spin) if spin * len(x) > 0.3 else ("still", speed)
    if short < max(2.0, 0.12 * long):
        if range_x > range_y:
            return ("right" if x[-1] > x[0] else "left"), speed
        return ("down" if y[-1] > y[0] else "up"), speed
    return ("orbit" if _is_circle(x, y, long, speed) else "bounce"), speed


def _is_circle(x: Array, y: Array, extent: float, speed: float) -> bool:
    """Whether the path lies on a circle of the orbit's size and bends all along, as folded lines do not."""
    rows = np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1)
    (centre_x, centre_y, c), *_ = np.linalg.lstsq(rows, x**2 + y**2, rcond=None)
    radius = math.sqrt(max(1e-6, c + centre_x**2 + centre_y**2))
    residual = math.sqrt(np.mean((np.hypot(x - centre_x, y - centre_y) - radius) ** 2))
    lag = max(4, min(12, len(x) // 6))
    spread = max(_median_deviation(np.abs(u[lag:] - u[:-lag]) / lag) for u in (x, y)) / (speed + 1e-6)
    near_circle = residual < max(0.25, 0.12 * radius * min(1.0, extent / radius))
    return bool(near_circle and 0.6 * ORBIT_RADIUS < radius < 1.5 * ORBIT_RADIUS and spread > 0.07)


def _median_deviation(values: Array) -> float:
    return float(np.median(np.abs(values - np.median(values))))
