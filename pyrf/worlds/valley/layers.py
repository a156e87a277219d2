"""The layers of each land, far to near: where they stand, how high they rise, what grows there."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pyrf.worlds.valley.attributes import Attributes


@dataclass(frozen=True)
class Grove:
    """Trees along a layer's ridge.

    Attributes:
        kind: see `trees.KINDS`.
        height: pixels.
        gap: pixels between two places where a tree may stand.
        share: of the places that are taken.
        depth: rows below the ridge that a tree may stand.
    """

    kind: str
    height: float
    gap: float
    share: float
    depth: float = 2.0


@dataclass(frozen=True)
class Layer:
    """Ground between two depths.

    Attributes:
        kind: "peaks", "rolling", "dune", "mesa" or "isles"; "water" is drawn by itself.
        parallax: pixels that it moves while the nearest ground moves one.
        base, rise: row of its foot, and rows that it rises above.
        scale: pixels from one summit to the next.
        haze: share of the air's colour over all of it.
        mist: what haze grows by from the ridge down.
        seed: of its shape.
        groves: far trees first.
        roughness: of its outline, about 1.
    """

    kind: str
    parallax: float
    base: float
    rise: float
    scale: float
    haze: float
    mist: float
    seed: int
    groves: tuple[Grove, ...] = ()
    roughness: float = 1.0

    @property
    def top(self) -> int:
        """The first row that the ground reaches."""
        above = {"peaks": 1.0, "rolling": 1.3, "dune": 1.15, "mesa": 1.0, "isles": 1.4}[self.kind]
        return max(0, int(self.base - above * self.rise - 5 * self.roughness))

    @property
    def foot(self) -> int:
        """The first row that is all ground."""
        below = {"peaks": 0.0, "rolling": 0.7, "dune": 0.15, "mesa": 0.0, "isles": 0.0}[self.kind]
        return int(self.base + below * self.rise) + 2


def layers_of(attributes: Attributes, horizon: float, roughness: float, rng: random.Random) -> list[Layer]:
    """The layers of a scene; what the caption leaves open is drawn from `rng`."""
    seed = rng.randrange(1 << 24)
    big = rng.uniform(0.9, 1.15)
    build = {"mountains": _mountains, "hills": _hills, "dunes": _dunes, "sea": _sea}[attributes.land]
    fog = {"clear": 0.0, "cloudy": 0.04, "foggy": 0.30}[attributes.weather]
    layers = []
    for n, (kind, parallax, base, rise, scale, haze, mist, groves) in enumerate(
        build(attributes, horizon, big, rng)
    ):
        if parallax < 1:
            haze = min(0.90, haze + fog * (1.15 if haze > 0.3 else 0.9))
            mist = min(0.92, mist + fog)
        layers.append(Layer(kind, parallax, base, rise, scale, haze, mist, seed + n, groves, roughness))
    return layers


_Row = tuple[str, float, float, float, float, float, float, tuple[Grove, ...]]
"""Kind, parallax, base, rise, scale, haze, mist, groves."""


def _wood(attributes: Attributes, rng: random.Random) -> str:
    """The kind of tree of a land with seasons."""
    if attributes.season == "autumn":
        return rng.choice(("round", "round", "poplar"))
    if attributes.season == "snowy" or attributes.land == "mountains":
        return "pine"
    return rng.choice(("pine", "round", "poplar"))


def _near_groves(kind: str, height: float, gap: float, share: float) -> tuple[Grove, ...]:
    """Two lines of trees, so that some stand together."""
    return Grove(kind, height * 0.82, gap * 1.31, share, 1.0), Grove(kind, height, gap, share, 5.0)


def _mountains(attributes: Attributes, horizon: float, big: float, rng: random.Random) -> list[_Row]:
    height, kind = rng.uniform(34, 44), _wood(attributes, rng)
    far = (Grove(kind, 15, 17, 0.55, 3.0), Grove(kind, 17, 23, 0.55, 5.0))
    return [
        ("peaks", 0.05, horizon + 8, 70 * big, 92, 0.60, 0.55, ()),
        ("peaks", 0.13, horizon + 20, 44 * big, 70, 0.36, 0.60, ()),
        ("rolling", 0.34, horizon + 27, 15, 120, 0.20, 0.60, far),
        ("rolling", 1.0, 170, 14, 170, 0.0, 0.0, _near_groves(kind, height, 58, 0.6)),
    ]


def _hills(attributes: Attributes, horizon: float, big: float, rng: random.Random) -> list[_Row]:
    height, kind = rng.uniform(30, 40), _wood(attributes, rng)
    far = (Grove(kind, 15, 19, 0.4, 4.0), Grove(kind, 17, 29, 0.45, 8.0))
    return [
        ("rolling", 0.06, horizon - 2, 27 * big, 130, 0.62, 0.45, ()),
        ("rolling", 0.15, horizon + 12, 22 * big, 110, 0.38, 0.48, ()),
        ("rolling", 0.37, horizon + 30, 18, 140, 0.17, 0.42, far),
        ("rolling", 1.0, 172, 13, 190, 0.0, 0.0, _near_groves(kind, height, 70, 0.55)),
    ]


def _dunes(attributes: Attributes, horizon: float, big: float, rng: random.Random) -> list[_Row]:
    height = rng.uniform(26, 36)
    return [
        ("mesa", 0.05, horizon + 5, 38 * big, 112, 0.56, 0.55, ()),
        ("dune", 0.14, horizon + 16, 22 * big, 115, 0.34, 0.40, ()),
        ("dune", 0.36, horizon + 36, 26, 160, 0.14, 0.35, ()),
        ("dune", 1.0, 174, 18, 210, 0.0, 0.0, (Grove("cactus", height, 104, 0.8, 6.0),)),
    ]


def _sea(attributes: Attributes, horizon: float, big: float, rng: random.Random) -> list[_Row]:
    kind, height = rng.choice(("palm", "palm", "pine", "round")), rng.uniform(34, 46)
    return [
        ("isles", 0.04, horizon + 1, 30 * big, 135, 0.52, 0.40, ()),
        ("water", 0.3, horizon, 0, 1, 0.0, 0.0, ()),
        ("rolling", 1.0, 181, 9, 150, 0.0, 0.0, _near_groves(kind, height, 76, 0.6)),
    ]
