"""Water: waves in perspective, and the path of light that sun or moon lays over them."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from pyrf.worlds.valley.attributes import HEIGHT, WIDTH, Attributes
from pyrf.worlds.valley.noise import smooth
from pyrf.worlds.valley.palette import Hour, mix, rgb
from pyrf.worlds.valley.sky import Disc


class Sea:
    """The water below the horizon, a closed form of time and of the camera's place.

    Waves are sines of (what depends on the pixel) + (what depends on the moment), by the sum formula: so
    a frame does not depend on those that it is drawn with.
    """

    def __init__(
        self, attributes: Attributes, hour: Hour, haze: Tensor, disc: Disc, horizon: float, rng: random.Random
    ) -> None:
        foggy = attributes.weather == "foggy"
        self.top = int(horizon)
        y = (torch.arange(self.top, HEIGHT, dtype=torch.float32, device="cpu") + 0.5 - horizon)[:, None]
        x = (torch.arange(WIDTH, dtype=torch.float32, device="cpu") + 0.5)[None]
        depth = (y / (HEIGHT - horizon)).clamp(0, 1)
        near = mix(rgb(0.04, 0.38, 0.48), hour.top, 0.42) * (0.55 + 0.45 * float(hour.light.mean()))
        color = mix(hour.low, hour.middle, 0.5)[:, None, None]
        color = mix(color, near[:, None, None], smooth(depth, 0, 0.55))
        if foggy:
            color = mix(color, haze[:, None, None], 0.75 * (1 - depth))
        path = (-((x - disc.x) / (9 + 30 * depth)).square()).exp()
        glow = (0.7 if foggy else 1.0) * 0.34 * path * (1 - 0.8 * depth)
        self.base = 255 * mix(color, hour.glow[:, None, None].clamp(max=1), glow) + 0.5
        far = 1 / (0.92 * depth + 0.08)  # distance of a row
        shown = smooth(depth, 0.02, 0.4)
        # wave numbers across and away, radians a frame; long waves, that a small codec can keep
        waves = ((0.020, 15.0, 0.07), (-0.034, 21.0, 0.10), (0.052, 29.0, 0.13))
        self.moments = [(0.85 * across, speed, rng.uniform(0, 2 * math.pi)) for across, _, speed in waves]
        across = (x - WIDTH / 2) * far
        self.sines, self.cosines = [], []
        for number, (k_across, k_away, _) in enumerate(waves):
            phase = k_across * across + k_away * far.log()
            share = shown / (1 + 0.6 * number)
            self.sines.append(share * phase.sin())
            self.cosines.append(share * phase.cos())
        self.lift = 255 * (0.050 * (1.2 - 0.5 * depth))
        strength = (0.95 if attributes.time != "noon" else 0.70) * (0.5 if foggy else 1.0)
        self.spark = path * strength
        self.columns = slice(max(0, int(disc.x) - 62), min(WIDTH, int(disc.x) + 63))
        self.disc = 255 * hour.disc[:, None, None].clamp(max=1)

    def to(self, device: torch.device) -> Sea:
        """Move what is drawn from to a device, in place."""
        for name in ("base", "lift", "spark", "disc"):
            setattr(self, name, getattr(self, name).to(device))
        self.sines = [wave.to(device) for wave in self.sines]
        self.cosines = [wave.to(device) for wave in self.cosines]
        return self

    def onto(self, frame: Tensor, time: float, camera: float) -> None:
        """Draw over the rows below the horizon of `frame` [3, H, W], levels.

        Args:
            time: frames since the beginning.
            camera: world column of the nearest layer.
        """
        wave = torch.zeros_like(self.sines[0])
        for sine, cosine, (pan, speed, start) in zip(self.sines, self.cosines, self.moments):
            angle = pan * camera + speed * time + start
            wave += sine * math.cos(angle)
            wave += cosine * math.sin(angle)
        part = frame[:, self.top :]
        part.copy_(self.base + self.lift * wave)
        here = self.columns
        spark = self.spark[:, here]
        bright = ((0.9 * wave[:, here] + 0.72 * spark - 0.30) * 1.8).clamp(0, 1) * spark
        part[:, :, here] += (self.disc - part[:, :, here]) * bright
