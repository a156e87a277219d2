"""The hot air balloon: its path over the screen, and its picture."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyrf.worlds.valley.attributes import BALLOONS, WIDTH, Attributes
from pyrf.worlds.valley.palette import Hour, mix, rgb
from pyrf.worlds.valley.sprites import SAMPLES, Canvas
from pyrf.worlds.valley.strips import levels

_BELOW = 2.06
"""Radii from the middle of the envelope to the foot of the basket."""


@dataclass(frozen=True)
class Flight:
    """Where the balloon is. One that leaves the screen comes in again at the other side.

    Attributes:
        path: one of `attributes.PATHS`.
        radius: of the envelope, pixels.
        x, y: of its middle at the beginning, pixels; along a path, shares of the period.
        speed: pixels a frame along the path.
        phase: of its bobbing, radians.
        period: pixels after which it comes again. Before the last of one is gone, the next is in sight.
    """

    path: str
    radius: float
    x: float
    y: float
    speed: float
    phase: float
    period: float

    @classmethod
    def sample(cls, path: str, horizon: float, rng: random.Random) -> Flight:
        radius = rng.uniform(18, 22)
        x = rng.uniform(radius + 12, WIDTH - radius - 12)
        y = rng.uniform(radius + 4, 0.62 * horizon)
        share = rng.random()
        if path in ("left", "right"):
            return cls(path, radius, share, y, rng.uniform(0.5, 0.9), _turn(rng), WIDTH + 0.5 * radius)
        ridge = horizon + 42  # of the nearest ground, about
        return cls(
            path,
            radius,
            x,
            share if path in ("rise", "sink") else y,
            rng.uniform(0.5, 0.8),
            _turn(rng),
            ridge + 0.9 * radius,
        )

    def turned(self, path: str, time: float, horizon: float, rng: random.Random) -> Flight:
        """The same balloon on another path, from where it is at a frame on.

        What the new path does not change is kept well in sight.
        """
        flight = Flight.sample(path, horizon, rng)
        ahead = "x" if path in ("left", "right") else "y"
        period = WIDTH + 0.5 * self.radius if ahead == "x" else horizon + 42 + 0.9 * self.radius
        flight = replace(flight, radius=self.radius, phase=self.phase, period=period)
        here = self.at(time)
        if not here:
            return flight
        (x, y), bob, rim = here[0], self._bob(time), 0.8 * self.radius
        in_sight = min(max(x, rim), WIDTH - rim), min(max(y, rim), horizon - 10)
        if path == "hover":
            return replace(flight, x=in_sight[0] - 0.6 * bob, y=in_sight[1] - bob)
        gone = flight.sign * flight.speed * time
        if ahead == "x":
            return replace(flight, x=((x + 0.25 * self.radius - gone) / period) % 1, y=in_sight[1] - bob)
        return replace(flight, x=in_sight[0] - bob, y=((y + 0.45 * self.radius - gone) / period) % 1)

    @property
    def sign(self) -> int:
        """Whether its place grows or shrinks with time."""
        return 1 if self.path in ("right", "sink") else -1

    def _bob(self, time: float) -> float:
        return 1.2 * math.sin(2 * math.pi / 84 * time + self.phase)

    def at(self, time: float) -> list[tuple[float, float]]:
        """Middles of the envelope at a frame, pixels; the second, if any, is at the other side."""
        bob = self._bob(time)
        if self.path in ("left", "right"):
            way = self.x * self.period + self.sign * self.speed * time
            x = way % self.period - 0.25 * self.radius
            both = [(x, self.y + bob), (x + self.period, self.y + bob), (x - self.period, self.y + bob)]
            return [place for place in both if -self.radius < place[0] < WIDTH + self.radius]
        if self.path in ("rise", "sink"):
            way = self.y * self.period + self.sign * self.speed * time
            y = way % self.period - 0.45 * self.radius
            both = [(self.x + bob, y), (self.x + bob, y - self.period), (self.x + bob, y + self.period)]
            return [place for place in both if -_BELOW * self.radius < place[1] < self.period + self.radius]
        return [(self.x + 0.6 * bob, self.y + bob)]


def _turn(rng: random.Random) -> float:
    return rng.uniform(0, 2 * math.pi)


class Balloon:
    """A balloon's picture at every quarter of a pixel.

    Attributes:
        color, through: premultiplied levels [4, 4, 3, h, w] and one less the opacity [4, 4, h, w].
    """

    def __init__(
        self, attributes: Attributes, hour: Hour, haze: Tensor, side: float, radius: float, rng: random.Random
    ) -> None:
        assert attributes.balloon is not None
        main = torch.tensor(BALLOONS[attributes.balloon], dtype=torch.float32, device="cpu") / 255
        # the second colour stays near the first, so that a smear still has the balloon's colour
        other = mix(main, rgb(1.0, 0.97, 0.90), rng.uniform(0.40, 0.60))
        canvas = Canvas(math.ceil((1 + _BELOW) * radius) + 2, 2 * math.ceil(radius) + 4)
        self.middle = canvas.height - math.ceil(_BELOW * radius) - 1
        x, y = canvas.x, (self.middle - (canvas.height - canvas.y)) / radius  # y: radii above the middle
        q = x / radius
        narrow = ((-y) / 1.42).clamp(0, 1)
        half = torch.where(y > 0, (1 - y.square()).clamp(min=0).sqrt(), 1 - 0.80 * narrow**1.7)
        envelope = (q.abs() < half) & (y < 1) & (y > -1.32)
        across = (q / half.clamp(min=0.05)).clamp(-1, 1)
        gores = rng.choice((2, 3))
        stripe = (2.4 * (2 * gores * across.asin()).cos() + 0.2).clamp(0, 1)
        color = mix(other[:, None, None], main[:, None, None], stripe)
        if rng.random() < 0.4:
            belt = ((y + 0.15).abs() < 0.13).float()
            color = mix(color, other[:, None, None], belt)
        light = (0.82 + 0.24 * side * across + 0.20 * y).clamp(0.45, 1.12)
        tint = mix(hour.light, rgb(1, 1, 1), 0.62)
        if attributes.time == "night":  # lit from within by its burner
            light = (0.62 + 0.36 * (0.2 - y).clamp(0, 1) + 0.10 * side * across).clamp(0, 1.05)
            tint = rgb(1.0, 0.92, 0.84)
        veil = 0.22 if attributes.weather == "foggy" else 0.06

        def hazed(c: Tensor) -> Tensor:
            return mix((c * tint[:, None, None]).clamp(0, 1), haze[:, None, None], veil)

        brown = hazed(rgb(0.42, 0.27, 0.17)[:, None, None])
        ropes = ((q.abs() - 0.20).abs() < 0.045) & (y < -1.2) & (y > -1.8)
        canvas.paint(ropes.float() * 0.8, brown)
        canvas.paint((q.abs() < 0.26) & (y < -1.68) & (y > 0.02 - _BELOW), brown)
        canvas.paint(envelope, hazed(color * light))
        rgba = canvas.at_all_phases()
        self.color = levels(rgba[:, :, :3], rgba[:, :, 3:])
        self.through = 1 - rgba[:, :, 3]

    def to(self, device: torch.device) -> Balloon:
        """Move the pictures to a device, in place."""
        self.color, self.through = self.color.to(device), self.through.to(device)
        return self

    def onto(self, frame: Tensor, x: float, y: float) -> None:
        """Draw over `frame` [3, H, W], levels, with the middle of the envelope at (x, y)."""
        height, width = self.through.shape[-2:]
        left, top = round((x - (width - 1) / 2) * SAMPLES), round((y - self.middle) * SAMPLES)
        column, row = left // SAMPLES, top // SAMPLES
        phase = top % SAMPLES, left % SAMPLES
        color, through = self.color[phase], self.through[phase]
        rows = slice(max(0, row), min(frame.shape[1], row + height))
        columns = slice(max(0, column), min(frame.shape[2], column + width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        cut = (
            slice(rows.start - row, rows.stop - row),
            slice(columns.start - column, columns.stop - column),
        )
        part = frame[:, rows, columns]
        part *= through[cut]
        part += color[:, cut[0], cut[1]]
