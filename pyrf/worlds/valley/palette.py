"""Colours of the hours, of the grounds, and how light and haze change them. RGB float32 [3] in 0..1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


def rgb(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32, device="cpu")


def mix(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """`a` where share is 0, `b` where it is 1."""
    return a + (b - a) * share


@dataclass(frozen=True)
class Hour:
    """The colours of a time of day.

    Attributes:
        top, middle, low: of the sky from the zenith to the horizon.
        glow, disc: of the air around sun or moon, and of its disc.
        light, shade: by which a ground's colour is multiplied in the light and in the shade.
        strength: of the glow.
        wide: share of the glow that lies far around the disc and along the horizon.
    """

    top: Tensor
    middle: Tensor
    low: Tensor
    glow: Tensor
    disc: Tensor
    light: Tensor
    shade: Tensor
    strength: float
    wide: float

    def tinted(self, tint: Tensor) -> Hour:
        """The hour of one scene: `tint` is added to the sky, and a third of it to the lights."""

        def near(color: Tensor, share: float) -> Tensor:
            return (color + tint * share).clamp(0, 1.1)

        return replace(
            self,
            top=near(self.top, 1),
            middle=near(self.middle, 1),
            low=near(self.low, 1),
            glow=near(self.glow, 0.3),
            disc=near(self.disc, 0.3),
            light=near(self.light, 0.3),
            shade=near(self.shade, 0.3),
        )


HOURS = {
    "dawn": Hour(
        top=rgb(0.40, 0.48, 0.76),
        middle=rgb(0.88, 0.70, 0.78),
        low=rgb(1.00, 0.87, 0.72),
        glow=rgb(1.00, 0.76, 0.54),
        disc=rgb(1.00, 0.96, 0.86),
        light=rgb(1.04, 0.86, 0.80),
        shade=rgb(0.48, 0.46, 0.68),
        strength=0.55,
        wide=0.45,
    ),
    "noon": Hour(
        top=rgb(0.18, 0.47, 0.84),
        middle=rgb(0.46, 0.72, 0.95),
        low=rgb(0.84, 0.94, 0.98),
        glow=rgb(1.00, 0.98, 0.88),
        disc=rgb(1.00, 1.00, 0.95),
        light=rgb(1.06, 1.04, 0.97),
        shade=rgb(0.50, 0.60, 0.78),
        strength=0.42,
        wide=0.25,
    ),
    "dusk": Hour(
        top=rgb(0.21, 0.15, 0.42),
        middle=rgb(0.76, 0.33, 0.45),
        low=rgb(1.00, 0.66, 0.32),
        glow=rgb(1.00, 0.58, 0.20),
        disc=rgb(1.00, 0.90, 0.66),
        light=rgb(1.02, 0.62, 0.44),
        shade=rgb(0.34, 0.20, 0.40),
        strength=0.70,
        wide=0.45,
    ),
    "night": Hour(
        top=rgb(0.03, 0.04, 0.14),
        middle=rgb(0.07, 0.13, 0.31),
        low=rgb(0.22, 0.33, 0.54),
        glow=rgb(0.50, 0.62, 0.90),
        disc=rgb(0.96, 0.97, 0.92),
        light=rgb(0.40, 0.50, 0.78),
        shade=rgb(0.08, 0.11, 0.25),
        strength=0.36,
        wide=0.28,
    ),
}


@dataclass(frozen=True)
class Ground:
    """What grows and lies there.

    Attributes:
        rock, grass, wood: colours of bare rock, open ground, and distant woods.
        leaf, other_leaf: the two colours that crowns are mixed from.
        snow: how far down the peaks snow reaches, 0 none, 1 all over.
    """

    rock: Tensor
    grass: Tensor
    wood: Tensor
    leaf: Tensor
    other_leaf: Tensor
    snow: float

    def tinted(self, tint: Tensor) -> Ground:
        """The ground of one scene: `tint` is added to it, and three fifths of it to the crowns."""
        return replace(
            self,
            rock=(self.rock + tint).clamp(0, 1),
            grass=(self.grass + tint).clamp(0, 1),
            wood=(self.wood + tint).clamp(0, 1),
            leaf=(self.leaf + 0.6 * tint).clamp(0, 1),
            other_leaf=(self.other_leaf + 0.6 * tint).clamp(0, 1),
        )


GROUNDS = {
    "green": Ground(
        rock=rgb(0.47, 0.49, 0.56),
        grass=rgb(0.45, 0.66, 0.31),
        wood=rgb(0.24, 0.47, 0.29),
        leaf=rgb(0.17, 0.40, 0.25),
        other_leaf=rgb(0.30, 0.55, 0.25),
        snow=0.40,
    ),
    "autumn": Ground(
        rock=rgb(0.53, 0.45, 0.45),
        grass=rgb(0.80, 0.61, 0.29),
        wood=rgb(0.70, 0.36, 0.17),
        leaf=rgb(0.76, 0.31, 0.13),
        other_leaf=rgb(0.92, 0.58, 0.16),
        snow=0.25,
    ),
    "snowy": Ground(
        rock=rgb(0.50, 0.54, 0.64),
        grass=rgb(0.90, 0.94, 0.99),
        wood=rgb(0.56, 0.67, 0.76),
        leaf=rgb(0.22, 0.37, 0.43),
        other_leaf=rgb(0.40, 0.53, 0.60),
        snow=1.00,
    ),
    "dunes": Ground(
        rock=rgb(0.74, 0.43, 0.31),
        grass=rgb(0.95, 0.72, 0.44),
        wood=rgb(0.80, 0.52, 0.32),
        leaf=rgb(0.29, 0.44, 0.29),
        other_leaf=rgb(0.40, 0.48, 0.27),
        snow=0.0,
    ),
    "sea": Ground(
        rock=rgb(0.45, 0.52, 0.57),
        grass=rgb(0.58, 0.66, 0.36),
        wood=rgb(0.36, 0.52, 0.34),
        leaf=rgb(0.18, 0.42, 0.29),
        other_leaf=rgb(0.42, 0.56, 0.26),
        snow=0.0,
    ),
}
SNOW = rgb(0.97, 0.98, 1.0)


@dataclass(frozen=True)
class Light:
    """How grounds look at an hour, in the scene's air.

    Attributes:
        side: 1 where the sun stands right of the middle, else -1.
        haze: the colour that distance fades to.
    """

    hour: Hour
    is_night: bool
    side: float
    haze: Tensor

    def lit_and_shaded(self, color: Tensor) -> tuple[Tensor, Tensor]:
        """A colour in the light and in the shade; at night grounds lose two fifths of their colour."""
        hour = self.hour
        if self.is_night:
            color = mix(color, color.mean() * rgb(0.9, 1.0, 1.1), 0.4)
        lit = color * hour.light
        shaded = color * (0.45 * hour.shade + 0.25 * hour.light) + 0.10 * hour.shade
        return lit.clamp(0, 1), shaded.clamp(0, 1)


def haze_of(hour: Hour, *, foggy: bool) -> Tensor:
    """The colour of distant air; fog is greyer."""
    color = mix(hour.low, hour.middle, 0.25)
    return mix(color, color.mean() * rgb(1.02, 1.02, 1.02), 0.45) if foggy else color
