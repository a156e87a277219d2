"""What a caption of the shapes world may say, and the numbers behind the words."""

from __future__ import annotations

from dataclasses import dataclass

HEIGHT, WIDTH, FPS = 64, 96, 16

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (45, 80, 235),
    "yellow": (245, 220, 40),
    "purple": (165, 50, 200),
    "white": (248, 248, 248),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "grey": (118, 118, 122),
    "black": (20, 20, 24),
    "brown": (112, 74, 46),
    "teal": (24, 112, 116),
}
SIZES: dict[str, float] = {"small": 10.0, "large": 14.0}
SHAPES = ("circle", "square", "triangle", "star")
MOTIONS = ("right", "left", "up", "down", "bounce", "still", "orbit", "spin")
SPEEDS: dict[str, tuple[float, float]] = {"slow": (0.35, 0.6), "fast": (1.7, 2.3)}
"""Pixels per frame."""
SPINS: dict[str, tuple[float, float]] = {"slow": (0.025, 0.045), "fast": (0.12, 0.17)}
"""Radians per frame."""
ORBIT_RADIUS = 15.0


@dataclass(frozen=True)
class Attributes:
    """What a caption may say of a scene. `speed` is None where the caption leaves it open."""

    color: str
    shape: str
    size: str
    motion: str
    speed: str | None
    background: str

    @property
    def speed_is_open(self) -> bool:
        """It moves, at any speed."""
        return self.speed is None and self.motion != "still"
