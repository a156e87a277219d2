"""What a caption may say of a valley, and the numbers behind the words."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass

HEIGHT, WIDTH, FPS = 192, 320, 16

TIMES = ("dawn", "noon", "dusk", "night")
LANDS = ("mountains", "hills", "dunes", "sea")
SEASONS = ("green", "autumn", "snowy")
"""Of the seasonal lands; dunes and the sea have none."""
SEASONAL = ("mountains", "hills")
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
NO_BALLOON = "none"
"""Of what a prompt asks for that wants an empty sky."""
NAMES = ("time", "land", "season", "weather", "balloon", "path", "camera", "speed")
"""Of the attributes, in the order of `Attributes`."""
STANDING = NAMES[:5]
"""Those that a single frame can show."""


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

    @property
    def facts(self) -> dict[str, str | None]:
        """Attribute -> value as a prompt may ask for it: None where there is nothing to ask."""
        return {**asdict(self), "balloon": self.balloon or NO_BALLOON}


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


def fitting(values: dict[str, str | None]) -> Attributes:
    """Attributes from values drawn each by itself: what cannot go together is left out."""
    if values["land"] not in SEASONAL:
        values["season"] = None
    if values["balloon"] in (None, NO_BALLOON):
        values["balloon"] = values["path"] = None
    if values["camera"] == "still":
        values["speed"] = None
    return Attributes(**values)  # type: ignore[arg-type]
