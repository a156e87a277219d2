"""A scene: one endless video, a closed form of time and seed."""

from __future__ import annotations

import random
from copy import copy
from functools import cached_property

import torch
from torch import Tensor

from pyrf.worlds.valley.attributes import HEIGHT, WIDTH, Attributes, fitting, velocity
from pyrf.worlds.valley.balloon import Balloon, Flight
from pyrf.worlds.valley.captions import caption
from pyrf.worlds.valley.layers import layers_of
from pyrf.worlds.valley.palette import GROUNDS, HOURS, Light, haze_of, rgb
from pyrf.worlds.valley.ridges import Shading
from pyrf.worlds.valley.sea import Sea
from pyrf.worlds.valley.sky import CLOUD_PARALLAX, FOG_PARALLAX, Clouds, Disc, FogBank, Sky
from pyrf.worlds.valley.strips import Painter, Strip, span
from pyrf.worlds.world import Facts, Frames, Subject

LONGEST_STRIP = 1024
"""Columns; a stretch that needs wider strips is drawn in parts."""


class Scene:
    """What is constant in a video, whether captions name it or not, and how its frames are drawn.

    Attributes:
        velocity: pixels a frame that the camera goes right, as the nearest ground shows it.
        start: where the camera is at frame 0, pixels.
        flight: of the balloon, None without one.
    """

    def __init__(self, attributes: Attributes, rng: random.Random) -> None:
        self.attributes = attributes
        self.velocity = velocity(attributes, rng)
        self.start = rng.uniform(0, 1e5)
        self.wind = rng.choice((-1, 1)) * rng.uniform(0.12, 0.30)
        self.horizon = rng.uniform(112, 122)
        path = attributes.path
        self.flight = None if path is None else Flight.sample(path, self.horizon, rng)
        self._seed = rng.randrange(1 << 40)

    @property
    def facts(self) -> Facts:
        """All that a prompt could ask of this scene."""
        return self.attributes.facts

    @property
    def speed_is_open(self) -> bool:
        """Whether the camera moves at a speed that captions do not name."""
        return self.attributes.speed_is_open

    def subjects(self, frame: int, /) -> list[Subject]:
        """The balloon's envelope: none, one, or two at the rims."""
        radius = 0.0 if self.flight is None else self.flight.radius
        return [Subject(x, y, radius) for x, y in self.balloons(frame)]

    def caption(self, rng: random.Random, /) -> str:
        """One of many wordings, which may leave attributes out."""
        return caption(self.attributes, rng)

    def turned(self, name: str, value: str, frame: int, rng: random.Random) -> Scene:
        """This scene as it goes on from a frame with another value of an attribute.

        Camera and balloon go on from where they are at that frame. All that captions do not name stays, but
        for the sun's height, which is the hour's, and what another land is made of.
        """
        scene = copy(self)
        vars(scene).pop("_pictures", None)
        scene.attributes = attributes = fitting({**self.attributes.facts, name: value})
        if name in ("camera", "speed"):
            scene.velocity = velocity(attributes, rng)
            scene.start = self.camera(frame) - scene.velocity * frame
        if name == "path" and self.flight is not None:
            scene.flight = self.flight.turned(value, frame, self.horizon, rng)
        return scene

    def camera(self, time: int) -> float:
        """World column of the nearest ground at the frame's left edge."""
        return self.start + self.velocity * time

    def balloons(self, time: int) -> list[tuple[float, float]]:
        """Middles (x, y) of the balloon's envelope at a frame, pixels: none, one, or two at the rims."""
        return [] if self.flight is None else self.flight.at(time)

    @cached_property
    def _pictures(self) -> _Pictures:
        return _Pictures(self, self._seed)

    def draw(self, start_frame: int, frames: int, device: torch.device | str = "cpu") -> Tensor:
        """Frames start_frame..start_frame + frames - 1 as uint8 [frames, 3, HEIGHT, WIDTH] on a device."""
        return self._pictures.draw(start_frame, frames, torch.device(device))

    def render(self, start_frame: int, frames: int, /) -> Frames:
        """Frames start_frame..start_frame + frames - 1 as uint8 [frames, HEIGHT, WIDTH, 3]."""
        return self.draw(start_frame, frames).permute(0, 2, 3, 1).contiguous().numpy()


class _Pictures:
    """All that a scene is drawn from. Each part draws from a generator of its own, beside any others."""

    def __init__(self, scene: Scene, seed: int) -> None:
        a = self.attributes = scene.attributes
        self.scene = scene

        def rng(part: str) -> random.Random:
            return random.Random(f"{seed} {part}")

        def tint(part: str, red: float, green: float, blue: float) -> Tensor:
            of = rng(part)
            return rgb(of.uniform(-red, red), of.uniform(-green, green), of.uniform(-blue, blue))

        hour = HOURS[a.time].tinted(tint("hour", 0.035, 0.03, 0.035))
        ground = GROUNDS[a.season or a.land].tinted(tint("ground", 0.04, 0.04, 0.04))
        foggy = a.weather == "foggy"
        haze = haze_of(hour, foggy=foggy)
        disc = Disc.sample(a.time, scene.horizon, rng("disc"))
        side = 1.0 if disc.x > WIDTH / 2 else -1.0
        light = Light(hour, a.time == "night", side, haze)
        self.sky = Sky(a, hour, haze, disc, scene.horizon, rng("stars"))
        self.clouds = Clouds(a, hour, scene.horizon, rng("clouds")) if a.weather == "cloudy" else None
        self.fog = FogBank(haze, scene.horizon, rng("fog")) if foggy else None
        self.sea = Sea(a, hour, haze, disc, scene.horizon, rng("sea")) if a.land == "sea" else None
        roughness = rng("roughness").uniform(0.5, 1.4)
        self.layers = layers_of(a, scene.horizon, roughness, rng("layers"))
        self.painters: list[Painter | None] = []
        hidden = HEIGHT
        for layer in reversed(self.layers):
            if layer.kind == "water":
                self.painters.insert(0, None)
                hidden = int(scene.horizon) + 2
                continue
            woods = a.land == "hills" or (a.land == "sea" and layer.parallax < 1)
            shading = Shading(layer, ground, light, woods=woods)
            trees = rng(f"trees {layer.parallax}")
            self.painters.insert(0, Painter(layer, shading, hidden, trees, snowy=a.season == "snowy"))
            hidden = min(hidden, max(layer.foot, layer.top + 4))
        self.balloon = None
        if scene.flight is not None:
            self.balloon = Balloon(a, hour, haze, side, scene.flight.radius, rng("balloon"))

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        out = torch.empty(count, 3, HEIGHT, WIDTH, dtype=torch.uint8, device=device)
        speed = max(abs(self.scene.velocity), 0.01)
        part = max(1, int((LONGEST_STRIP - WIDTH) / speed))
        for first in range(0, count, part):
            self._draw(start + first, out[first : first + part], device)
        return out

    def _draw(self, start: int, out: Tensor, device: torch.device) -> None:
        times = range(start, start + len(out))
        scene = self.scene
        camera = [scene.camera(t) for t in times]
        strips: list[tuple[Strip | None, list[float]]] = []
        for layer, painter in zip(self.layers, self.painters):
            offsets = [layer.parallax * c for c in camera]
            strip = None if painter is None else painter.strip(*span(offsets, WIDTH), device)
            strips.append((strip, offsets))
        drifting = {}
        for name, thing, parallax, wind in (
            ("clouds", self.clouds, CLOUD_PARALLAX, 1.0),
            ("fog", self.fog, FOG_PARALLAX, 1.5),
        ):
            if thing is not None:
                offsets = [parallax * c + wind * scene.wind * t for c, t in zip(camera, times)]
                drifting[name] = thing.strip(*span(offsets, WIDTH), device), offsets
        sky = self.sky.picture.to(device)
        through, glow = self.sky.glow_through.to(device), self.sky.glow.to(device)
        sea = None if self.sea is None else self.sea.to(device)
        balloon = None if self.balloon is None else self.balloon.to(device)
        frame = torch.empty(3, HEIGHT, WIDTH, dtype=torch.float32, device=device)
        last_of_glow = 0 if sea is not None else 1
        for n, time in enumerate(times):
            frame.copy_(sky)
            if "clouds" in drifting:
                clouds, offsets = drifting["clouds"]
                clouds.onto(frame, offsets[n])
            for number, (strip, offsets) in enumerate(strips):
                if number == len(strips) - 1 and balloon is not None:
                    for x, y in scene.balloons(time):
                        balloon.onto(frame, x, y)
                if strip is not None:
                    strip.onto(frame, offsets[n])
                elif sea is not None:
                    sea.onto(frame, time, camera[n])
                if number == last_of_glow:
                    lit = frame[:, : through.shape[1]]
                    lit *= through
                    lit += glow
                if number == len(strips) - 2 and "fog" in drifting:
                    fog, offsets = drifting["fog"]
                    fog.onto(frame, offsets[n])
            out[n] = frame.clamp_(0, 255.999)
