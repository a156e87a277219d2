"""One moving shape on a soft background: trajectories and anti-aliased frames.

A scene is a closed form of time, so any stretch of an endless video can be drawn without drawing
what came before. Everything is a function of the seed.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pyrf.worlds.shapes.attributes import (
    BACKGROUNDS,
    COLORS,
    HEIGHT,
    ORBIT_RADIUS,
    SHAPES,
    SIZES,
    SPEEDS,
    SPINS,
    WIDTH,
    Attributes,
)
from pyrf.worlds.shapes.captions import caption
from pyrf.worlds.world import Facts, Frames, Subject


@dataclass(frozen=True)
class Scene:
    """One endless video: attributes and the numbers drawn for them.

    Attributes:
        radius: pixels.
        speed: pixels per frame, or radians per frame for a spin.
        start: where the shape is at frame 0, pixels; phases for bounce and orbit.
        heading: radians, direction of a bounce; start angle of an orbit or a spin.
        light: direction (x, y), strength and brightness of the background's gradient.
    """

    attributes: Attributes
    radius: float
    speed: float
    start: tuple[float, float]
    heading: float
    light: tuple[float, float, float, float]

    @classmethod
    def sample(cls, attributes: Attributes, rng: random.Random) -> Scene:
        """Draw a scene for the attributes."""
        radius = SIZES[attributes.size] * rng.uniform(0.92, 1.08)
        margin = radius + 1
        speed = _speed(attributes, rng)
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        inner_x, inner_y = rng.uniform(margin, WIDTH - margin), rng.uniform(margin, HEIGHT - margin)
        heading = rng.uniform(0, 2 * math.pi)
        motion = attributes.motion
        if motion in ("right", "left"):
            y = inner_y
        elif motion in ("up", "down"):
            x = inner_x
        elif motion in ("still", "spin"):
            x, y = inner_x, inner_y
        elif motion == "bounce":
            # start is a phase along the folded path: position and sense of travel in one number
            x, y = rng.uniform(0, 2 * (WIDTH - 2 * margin)), rng.uniform(0, 2 * (HEIGHT - 2 * margin))
            heading = math.radians(rng.uniform(33, 57))
        elif motion == "orbit":
            room_x, room_y = WIDTH / 2 - ORBIT_RADIUS - margin, max(0.0, HEIGHT / 2 - ORBIT_RADIUS - margin)
            x, y = WIDTH / 2 + rng.uniform(-1, 1) * room_x, HEIGHT / 2 + rng.uniform(-1, 1) * room_y
        angle = rng.uniform(0, 2 * math.pi)
        light = (math.cos(angle), math.sin(angle), rng.uniform(0.05, 0.22), rng.uniform(0.92, 1.08))
        return cls(attributes, radius, speed, (x, y), heading, light)

    @property
    def facts(self) -> Facts:
        return asdict(self.attributes)

    @property
    def speed_is_open(self) -> bool:
        return self.attributes.speed_is_open

    def caption(self, rng: random.Random, /) -> str:
        return caption(self.attributes, rng)

    def subjects(self, frame: int, /) -> list[Subject]:
        """The shape."""
        x, y, _ = self.path(frame, 1)
        return [Subject(float(x[0]) % WIDTH, float(y[0]) % HEIGHT, self.radius)]

    def path(
        self, first: int, count: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Centre x, y (pixels, not wrapped) and rotation (radians) at frames first..first+count-1."""
        t = np.arange(first, first + count, dtype=np.float64)
        x, y = np.full(count, self.start[0]), np.full(count, self.start[1])
        rotation = np.zeros(count)
        margin = self.radius + 1
        match self.attributes.motion:
            case "right":
                x = x + self.speed * t
            case "left":
                x = x - self.speed * t
            case "down":
                y = y + self.speed * t
            case "up":
                y = y - self.speed * t
            case "bounce":
                x = _fold(x + self.speed * math.cos(self.heading) * t, margin, WIDTH - margin)
                y = _fold(y + self.speed * math.sin(self.heading) * t, margin, HEIGHT - margin)
            case "orbit":
                phase = self.heading + self.speed / ORBIT_RADIUS * t
                x, y = x + ORBIT_RADIUS * np.cos(phase), y + ORBIT_RADIUS * np.sin(phase)
            case "spin":
                rotation = self.heading + self.speed * t
        return x, y, rotation

    def render(self, first: int, count: int, /) -> Frames:
        """Frames first..first+count-1 as uint8 [count, HEIGHT, WIDTH, 3]; edges are anti-aliased."""
        x, y, rotation = self.path(first, count)
        background = self._background()
        frames = np.broadcast_to(background.astype(np.uint8), (count, HEIGHT, WIDTH, 3)).copy()
        reach = math.ceil(self.radius * 1.3) + 2
        offsets = np.arange(-reach, reach + 1)
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        dx = (offsets[None, None, :] + 0.5 - (x - column)[:, None, None]).astype(np.float32)
        dy = (offsets[None, :, None] + 0.5 - (y - row)[:, None, None]).astype(np.float32)
        if rotation.any():
            cos = np.cos(rotation).astype(np.float32)[:, None, None]
            sin = np.sin(rotation).astype(np.float32)[:, None, None]
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        distance = signed_distance(self.attributes.shape, dx, dy, self.radius)
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]
        rows = ((row[:, None] + offsets) % HEIGHT)[:, :, None]
        columns = ((column[:, None] + offsets) % WIDTH)[:, None, :]
        behind = background[rows, columns]
        color = np.array(COLORS[self.attributes.color], np.float32)
        frames[np.arange(count)[:, None, None], rows, columns] = (
            behind + alpha * (color - behind) + 0.5
        ).astype(np.uint8)
        return frames

    def _background(self) -> NDArray[np.float32]:
        light_x, light_y, strength, brightness = self.light
        rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        slope = 2 * strength * (light_x * (columns / WIDTH - 0.5) + light_y * (rows / HEIGHT - 0.5))
        base = np.array(BACKGROUNDS[self.attributes.background], np.float32) * brightness
        return np.clip(base * (1 + slope[..., None]) + 6 * slope[..., None], 0, 255)


def _speed(attributes: Attributes, rng: random.Random) -> float:
    """Stated speeds are narrow bands; an open speed is broad, near-still included."""
    if attributes.motion == "still":
        return 0.0
    spin = attributes.motion == "spin"
    if attributes.speed is not None:
        return rng.uniform(*(SPINS if spin else SPEEDS)[attributes.speed])
    scale = 0.075 if spin else 1.0
    return scale * (rng.uniform(0.1, 0.2) if rng.random() < 0.25 else rng.uniform(0.25, 2.3))


def _fold(position: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """A coordinate that travels to and fro between two walls."""
    span = high - low
    phase = position % (2 * span)
    return low + np.where(phase > span, 2 * span - phase, phase)


def signed_distance(
    shape: str, x: NDArray[np.float32], y: NDArray[np.float32], radius: float
) -> NDArray[np.floating]:
    """Distance in pixels to the outline, negative inside; y points down. Sizes give near-equal areas."""
    match shape:
        case "circle":
            return np.hypot(x, y) - radius
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - 0.9 * radius
        case "triangle":
            slope = math.sqrt(3) / 2
            return np.maximum(y, np.abs(x) * slope - y / 2) - 0.6 * radius
        case "star":
            outer, inner = 1.3 * radius, 0.55 * radius
            # fold the plane onto one tenth of the star, bounded by a tip and a notch
            angle = np.arctan2(x, -y)
            angle = np.abs((angle + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
            length = np.hypot(x, y)
            px, py = length * np.cos(angle) - outer, length * np.sin(angle)
            notch_x, notch_y = inner * math.cos(math.pi / 5) - outer, inner * math.sin(math.pi / 5)
            norm = math.hypot(notch_x, notch_y)
            return (px * notch_y - py * notch_x) / norm
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
