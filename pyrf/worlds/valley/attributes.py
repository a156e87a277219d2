"""What a caption may say of a valley, and the numbers behind the words."""

from __future__ import annotations

import random
from dataclasses import dataclass

HEIGHT, WIDTH, FPS = 192, 320, 16

TIMES = ("dawn", "noon", "dusk", "night")
LANDS = ("mountains", "hills", "dunes", "sea")
SEASONS = ("green", "autumn", "snowy")
"""Of mountains and hills; dunes and the sea have none."""
WEATHERS = ("clear", "cloudy", "foggy")
BALLOONS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 42),
    "yellow": (250, 198, 36),
    "blue": (40, 98, 224),
    "purple": (146, 60, 190),
}
PATHS = ("left", "right", "rise", "sink", "hover")
"""How a balloon moves over the screen."""
CAMERAS = ("right", "left", "still")
SPEEDS: dict[str, tuple[float, float]] = {"slow": (0.6, 1.1), "fast": (2.6, 3.8)}
"""Pixels a frame of the nearest ground."""
OPEN_SPEEDS = ((0.12, 0.35), (0.35, 4.2))
"""Where a caption leaves the speed open: nearly still in a quarter of the scenes, else anything."""
NAMES = ("time", "land", "season", "weather", "balloon", "path", "camera", "speed")
"""Of the attributes, in the order of `Attributes`."""


@dataclass(frozen=True)
class Attributes:
    """What a caption may say of a scene.

    Attributes:
        season: None for dunes and the sea.
        balloon: colour of the balloon, None without one.
        path: of the balloon over the screen, None without one.
        camera: where it looks next; the ground goes the other way.
        speed: of the camera; None where it stands still, or moves at a speed that is left open.
    """

    time: str
    land: str
    season: str | None
    weather: str
    balloon: str | None
    path: str | None
    camera: str
    speed: str | None

    @property
    def speed_is_open(self) -> bool:
        """The camera moves, at any speed."""
        return self.speed is None and self.camera != "still"


@dataclass(frozen=True)
class Choices:
    """The part of the world that scenes are drawn from.

    Attributes:
        empty: share of the scenes without a balloon.

    Raises:
        ValueError: when a value is not known, or nothing is left to choose from.
    """

    times: tuple[str, ...] = TIMES
    lands: tuple[str, ...] = LANDS
    seasons: tuple[str, ...] = SEASONS
    weathers: tuple[str, ...] = WEATHERS
    balloons: tuple[str, ...] = tuple(BALLOONS)
    paths: tuple[str, ...] = PATHS
    cameras: tuple[str, ...] = CAMERAS
    empty: float = 0.2

    def __post_init__(self) -> None:
        all_known: dict[str, tuple[str, ...]] = {
            "times": TIMES,
            "lands": LANDS,
            "seasons": SEASONS,
            "weathers": WEATHERS,
            "balloons": tuple(BALLOONS),
            "paths": PATHS,
            "cameras": CAMERAS,
        }
        for name, known in all_known.items():
            given = getattr(self, name)
            unknown = [value for value in given if value not in known]
            if unknown or not given:
                raise ValueError(f"the valley's {name} are some of {', '.join(known)}; got {given!r}")
        if not 0 <= self.empty <= 1:
            raise ValueError(f"empty is a share from 0 to 1, got {self.empty!r}")

    def sample(self, rng: random.Random) -> Attributes:
        """Draw attributes. Foggy scenes and still cameras are half as frequent as the others."""
        land = rng.choice(self.lands)
        weathers = [w for w in self.weathers for _ in range(1 if w == "foggy" else 2)]
        cameras = [c for c in self.cameras for _ in range(1 if c == "still" else 2)]
        camera = rng.choice(cameras)
        has_balloon = rng.random() >= self.empty
        return Attributes(
            time=rng.choice(self.times),
            land=land,
            season=rng.choice(self.seasons) if land in ("mountains", "hills") else None,
            weather=rng.choice(weathers),
            balloon=rng.choice(self.balloons) if has_balloon else None,
            path=rng.choice(self.paths) if has_balloon else None,
            camera=camera,
            speed=None if camera == "still" else rng.choice((*SPEEDS, None)),
        )


def velocity(attributes: Attributes, rng: random.Random) -> float:
    """Pixels a frame that the camera goes right, as the nearest ground shows it."""
    if attributes.camera == "still":
        return 0.0
    if attributes.speed is not None:
        speed = rng.uniform(*SPEEDS[attributes.speed])
    else:
        near_still, broad = OPEN_SPEEDS
        speed = rng.uniform(*(near_still if rng.random() < 0.25 else broad))
    return speed if attributes.camera == "right" else -speed
