"""The sky: its gradient, stars, sun or moon, the glow around it, clouds and banks of fog."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrf.worlds.valley.attributes import HEIGHT, WIDTH, Attributes
from pyrf.worlds.valley.noise import hashed, noise, smooth
from pyrf.worlds.valley.palette import Hour, mix, rgb
from pyrf.worlds.valley.sprites import SAMPLES, Canvas
from pyrf.worlds.valley.strips import Strip, levels, paste, phases

CLOUD_PARALLAX, FOG_PARALLAX = 0.03, 0.22
CLOUD_CELL = 128
"""Pixels of sky for each cloud."""


@dataclass(frozen=True)
class Disc:
    """The sun, or the moon.

    Attributes:
        x, y, radius: pixels.
        phase: of the moon: how far its shadow has moved aside, in radii, with a sign.
    """

    x: float
    y: float
    radius: float
    phase: float

    @classmethod
    def sample(cls, time: str, horizon: float, rng: random.Random) -> Disc:
        heights = {"dawn": (0.60, 0.78), "noon": (0.18, 0.34), "dusk": (0.66, 0.86), "night": (0.20, 0.42)}
        radii = {"dawn": (11, 14), "noon": (10, 13), "dusk": (15, 19), "night": (11, 14)}
        x, y = rng.uniform(44, WIDTH - 44), rng.uniform(*heights[time]) * horizon
        return cls(x, y, rng.uniform(*radii[time]), rng.choice((-1, 1)) * rng.uniform(0.45, 0.9))


class Sky:
    """What stands still behind all layers, and the glow that lies over the far ones.

    Attributes:
        picture: levels, float32 [3, HEIGHT, WIDTH].
        glow_through, glow: one less the opacity of the glow, and its light: [3, rows, WIDTH] from row 0.
    """

    def __init__(
        self, attributes: Attributes, hour: Hour, haze: Tensor, disc: Disc, horizon: float, rng: random.Random
    ) -> None:
        self.attributes, self.hour, self.haze, self.horizon = attributes, hour, haze, horizon
        foggy = attributes.weather == "foggy"
        y = (torch.arange(HEIGHT, dtype=torch.float32, device="cpu") + 0.5)[:, None]
        x = (torch.arange(WIDTH, dtype=torch.float32, device="cpu") + 0.5)[None]
        down = (y / horizon).clamp(0, 1)
        picture = hour.top[:, None, None].expand(3, HEIGHT, WIDTH)
        picture = mix(picture, hour.middle[:, None, None], smooth(down, 0, 0.62))
        picture = mix(picture, hour.low[:, None, None], smooth(down, 0.45, 1))
        if foggy:
            picture = mix(picture, haze[:, None, None], 0.25 + 0.55 * down)
        if attributes.time == "night":
            picture = self._stars(picture.clone(), x, y, rng)
        picture = self._disc(picture, x - disc.x, y - disc.y, disc)
        glow = self._glow(x - disc.x, y, disc)
        rows = int(horizon) + 44
        self.picture = 255 * picture + 0.5
        self.picture[:, :rows] = self.picture[:, :rows] * (1 - glow[:, :rows]) + 255 * glow[:, :rows]
        # the far layers get theirs by a fade towards the foot of the scene
        over = glow * (1 - smooth(y, horizon + 2, horizon + 42))
        self.glow_through, self.glow = 1 - over[:, :rows], 255.5 * over[:, :rows]

    def _glow(self, dx: Tensor, y: Tensor, disc: Disc) -> Tensor:
        low = self.attributes.time in ("dawn", "dusk")
        veil = 0.7 if self.attributes.weather == "foggy" else 1.0
        distance = (dx.square() + 1.2 * (y - disc.y).square()).sqrt()
        near, far = (-distance / 34).exp(), (-distance / 95).exp()
        light = self.hour.strength * (0.75 * near + self.hour.wide * far)
        if low:
            along = (-(dx / 120).square()).exp() * (-((y - self.horizon) / 30).square()).exp()
            light = light + 0.30 * along
        return self.hour.glow[:, None, None].clamp(max=1) * (veil * light).clamp(0, 0.9)

    def _disc(self, picture: Tensor, dx: Tensor, dy: Tensor, disc: Disc) -> Tensor:
        distance = (dx.square() + dy.square()).sqrt()
        alpha = (disc.radius - distance + 0.5).clamp(0, 1)
        if self.attributes.time == "night":
            shift = disc.phase * 1.1 * disc.radius
            shadow = ((dx - shift).square() + (dy + 0.25 * shift).square()).sqrt()
            alpha = alpha * (1 - 0.94 * (0.96 * disc.radius - shadow + 0.5).clamp(0, 1))
        alpha = alpha * (0.75 if self.attributes.weather == "foggy" else 1.0)
        return mix(picture, self.hour.disc[:, None, None].clamp(max=1), alpha)

    def _stars(self, picture: Tensor, x: Tensor, y: Tensor, rng: random.Random) -> Tensor:
        """Few and round, so that a small codec can keep them."""
        count = {"clear": 34, "cloudy": 22, "foggy": 12}[self.attributes.weather]
        color = rgb(0.93, 0.95, 1.0)[:, None, None]
        for _ in range(count):
            at_x, at_y = rng.uniform(0, WIDTH), rng.random() ** 1.2 * (self.horizon - 16)
            size = rng.uniform(0.8, 1.1) + 0.5 * rng.random() ** 4
            bright = rng.uniform(0.35, 0.95)
            columns = slice(max(0, int(at_x) - 5), int(at_x) + 6)
            rows = slice(max(0, int(at_y) - 5), int(at_y) + 6)
            square = (x[:, columns] - at_x).square() + (y[rows] - at_y).square()
            shine = bright * (-square / (2 * size * size)).exp()
            picture[:, rows, columns] += (color - picture[:, rows, columns]) * shine
        return picture


class Clouds:
    """A strip of clouds, a few shapes that come again in another order and at other heights."""

    def __init__(self, attributes: Attributes, hour: Hour, horizon: float, rng: random.Random) -> None:
        self.horizon, self.seed = horizon, rng.randrange(1 << 24)
        top, bottom = _cloud_colors(attributes.time, hour)
        self.shapes = [_cloud(top, bottom, rng) for _ in range(4)]
        self.rows = int(0.80 * horizon)

    def strip(self, left: int, columns: int, device: torch.device) -> Strip:
        """World columns left..left + columns - 1 of the clouds."""
        rgba = torch.zeros(4, self.rows, SAMPLES, columns + 1, dtype=torch.float32, device=device)
        reach = self.shapes[0].shape[3]
        first = math.floor((left - reach) / CLOUD_CELL)
        last = math.floor((left + columns + reach) / CLOUD_CELL) + 1
        cells = torch.arange(first, last, dtype=torch.int64, device="cpu")
        across = ((cells + hashed(cells, self.seed)) * CLOUD_CELL).long().tolist()
        heights = (hashed(cells, self.seed + 1) * 0.62 * self.rows).long().tolist()
        kinds = (hashed(cells, self.seed + 2) * len(self.shapes)).long().tolist()
        for column, row, kind in zip(across, heights, kinds):
            paste(rgba, self.shapes[kind].to(device), column - left - reach // 2, row - 4)
        boxes = phases(rgba)
        return Strip(boxes[:, :3], 1 - boxes[:, 3], 0, left)


def _cloud_colors(time: str, hour: Hour) -> tuple[Tensor, Tensor]:
    if time == "night":
        return mix(hour.low, rgb(0.60, 0.68, 0.85), 0.30), mix(hour.middle, hour.low, 0.35)
    if time == "dusk":
        return mix(hour.low, rgb(1.0, 0.82, 0.66), 0.55), mix(hour.middle, hour.top, 0.25)
    return mix(hour.low, rgb(1, 1, 1), 0.62), mix(hour.middle, hour.low, 0.35)


def _cloud(top: Tensor, bottom: Tensor, rng: random.Random) -> Tensor:
    """Puffs on a flat foot, with soft rims: [4, rows, SAMPLES, columns]."""
    canvas = Canvas(36, 112)
    x, y = canvas.x, canvas.y - 5
    size = rng.uniform(0.85, 1.15)
    inside = torch.full_like(x + y, -1e3)
    for n in range(5):
        at = size * (-30 + 15 * n + rng.uniform(-4, 4))
        radius = size * rng.uniform(9, 15) * (1 - 0.14 * abs(n - 2))
        distance = ((x - at).square() + 1.25 * (y - 0.42 * radius).square()).sqrt()
        inside = torch.maximum(inside, radius - distance)
    inside = torch.minimum(inside, y * 0.9)
    alpha = 0.92 * smooth(inside, -0.8, 2.6)
    shine = smooth(y, 0, 20 * size)
    canvas.paint(alpha, mix(bottom[:, None, None], top[:, None, None], shine))
    return canvas.for_strip()


class FogBank:
    """Banks of fog that drift between the layers."""

    def __init__(self, haze: Tensor, horizon: float, rng: random.Random) -> None:
        self.haze, self.seed = haze, rng.randrange(1 << 24)
        self.top = int(horizon) - 22
        y = torch.arange(self.top, self.top + 78, dtype=torch.float32, device="cpu") + 0.5
        self.across_rows = 0.55 * (-((y - horizon - 14) / 15).square()).exp()

    def strip(self, left: int, columns: int, device: torch.device) -> Strip:
        """World columns left..left + columns - 1 of the fog."""
        whole = torch.arange(left, left + columns, dtype=torch.float64, device=device)
        u = whole + (torch.arange(SAMPLES, dtype=torch.float64, device=device) / SAMPLES + 0.5)[:, None]
        banks = smooth(noise(u / 85, self.seed), 0.25, 0.75).float()
        alpha = self.across_rows.to(device)[:, None] * banks[:, None]
        color = levels(self.haze.to(device)[:, None, None], torch.ones_like(alpha[:, None]))
        return Strip(color * alpha[:, None], 1 - alpha, self.top, left)
