"""Trees and the like, one function a kind; each paints a canvas with its foot in the middle."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from pyrf.worlds.valley.palette import SNOW, Light, mix, rgb
from pyrf.worlds.valley.sprites import Canvas

Painter = Callable[[Canvas, float, tuple[Tensor, Tensor], Tensor, float, random.Random], None]
"""Arguments: canvas, height in pixels, leaf colour (lit, shaded), trunk colour, side of the sun, and a
generator for what differs between two trees of a kind."""


def tree(
    kind: str, height: float, leaf: Tensor, light: Light, rng: random.Random, *, snowy: bool, haze: float
) -> Tensor:
    """A tree of a layer for a strip, [4, rows, SAMPLES, columns]; its foot is two pixels above the bottom.

    Args:
        haze: share of the air's colour between the tree and the camera.
    """
    painter, share = KINDS[kind]
    canvas = Canvas(int(height) + 4, 2 * int(height * share / 2) + 6)
    lit, shaded = light.lit_and_shaded(leaf)
    if snowy and kind in ("pine", "round"):
        lit = mix(lit, light.lit_and_shaded(SNOW)[0], 0.62)
    trunk = torch.stack(light.lit_and_shaded(rgb(0.36, 0.25, 0.19))).mean(0)
    canvas.y -= 2
    painter(canvas, height, (lit, shaded), trunk, light.side, rng)
    rgba = canvas.rgba
    rgba[:3] += (light.haze[:, None, None] * rgba[3] - rgba[:3]) * haze
    return canvas.for_strip()


def _pine(
    canvas: Canvas, height: float, leaf: tuple[Tensor, Tensor], trunk: Tensor, side: float, rng: random.Random
) -> None:
    """Three skirts, the lower ones wider; the side of the sun is lit, each skirt's foot is darker."""
    x, y = canvas.x, canvas.y
    width = height * rng.uniform(0.19, 0.23)
    canvas.paint((x.abs() < 0.035 * height) & (y > -2) & (y < 0.3 * height), trunk)
    skirts = ((0.12, 0.52, 1.0), (0.34, 0.76, 0.76), (0.58, 1.0, 0.52))
    for low, high, share in skirts:
        up = (y / height - low) / (high - low)
        half = width * share * (1 - up)
        droop = up + 0.10 * (x.abs() / (width * share)).square()  # the rim hangs down at its ends
        inside = (droop > 0) & (up < 1) & (x.abs() < half)
        shine = (0.50 + 0.55 * side * x / width + 0.45 * up).clamp(0, 1)
        canvas.paint(inside, mix(leaf[1][:, None, None], leaf[0][:, None, None], shine))


def _round(
    canvas: Canvas, height: float, leaf: tuple[Tensor, Tensor], trunk: Tensor, side: float, rng: random.Random
) -> None:
    """A crown of a large ball and two smaller ones on a short trunk."""
    x, y = canvas.x, canvas.y
    canvas.paint((x.abs() < 0.045 * height * (1.25 - y / height)) & (y > -2) & (y < 0.5 * height), trunk)
    radius = 0.29 * height
    wing = rng.uniform(0.8, 1.1)
    balls = (
        (-0.20 * wing, 0.47, 0.68),
        (0.21, 0.50 * wing, 0.66),
        (0.0, 0.66, 1.0),
    )
    for at, up, share in balls:
        r = radius * share
        dx, dy = x - at * height, y - up * height
        inside = dx.square() + 1.12 * dy.square() < r * r
        shine = (0.52 + 0.36 * side * dx / r + 0.46 * dy / r).clamp(0, 1)
        canvas.paint(inside, mix(leaf[1][:, None, None], leaf[0][:, None, None], shine))


def _poplar(
    canvas: Canvas, height: float, leaf: tuple[Tensor, Tensor], trunk: Tensor, side: float, rng: random.Random
) -> None:
    """A slender flame."""
    x, y = canvas.x, canvas.y
    canvas.paint((x.abs() < 0.03 * height) & (y > -2) & (y < 0.3 * height), trunk)
    width = height * rng.uniform(0.125, 0.15)
    up = ((y / height - 0.1) / 0.9).clamp(0, 1)
    half = width * (4 * up * (1 - up)).clamp(min=0).sqrt() * (1.12 - 0.45 * up)
    shine = (0.5 + 0.55 * side * x / width + 0.25 * (up - 0.4)).clamp(0, 1)
    canvas.paint(x.abs() < half, mix(leaf[1][:, None, None], leaf[0][:, None, None], shine))


_FRONDS = (
    *((-0.30, -0.10), (0.30, -0.10), (-0.36, 0.08), (0.36, 0.08)),
    *((-0.24, 0.19), (0.24, 0.19), (0.03, 0.20)),
)
"""How far each leaf of a palm reaches aside, and how far it rises first, in heights."""


def _palm(
    canvas: Canvas, height: float, leaf: tuple[Tensor, Tensor], trunk: Tensor, side: float, rng: random.Random
) -> None:
    """A bent trunk and seven broad leaves that hang down."""
    x, y = canvas.x, canvas.y
    bend = rng.choice((-1, 1)) * rng.uniform(0.08, 0.16) * height
    up = (y / (0.80 * height)).clamp(0, 1)
    middle = bend * up.square() - 0.4 * bend
    thick = height * (0.045 - 0.018 * up)
    canvas.paint(((x - middle).abs() < thick) & (y > -2) & (y < 0.80 * height), trunk)
    top_x, top_y = 0.6 * bend, 0.79 * height
    for reach, rise in _FRONDS:
        along = (x - top_x) / (reach * height)
        arc = top_y + height * (rise * 1.9 * along - (rise * 0.9 + 0.16) * along.square())
        thickness = 0.062 * height * (4 * along * (1.02 - along)).clamp(min=0).sqrt()
        inside = (along > 0) & (along < 1) & ((y - arc).abs() < thickness)
        shine = 0.35 + 0.5 * (rise + 0.1) / 0.3 + 0.3 * side * (1 if reach > 0 else -1)
        canvas.paint(inside, mix(leaf[1], leaf[0], min(1.0, max(0.0, shine))))


def _cactus(
    canvas: Canvas, height: float, leaf: tuple[Tensor, Tensor], trunk: Tensor, side: float, rng: random.Random
) -> None:
    """A column with two arms."""
    x, y = canvas.x, canvas.y
    flip = rng.choice((-1, 1))
    half = 0.085 * height

    def limb(at: float, low: float, high: float, r: float) -> Tensor:
        along = y.clamp(low * height, high * height - r)
        inside = (x - at * height).square() + (y - along).square() < r * r
        shine = (0.5 + 0.5 * side * (x - at * height) / r).clamp(0, 1)
        canvas.paint(inside, mix(leaf[1][:, None, None], leaf[0][:, None, None], shine))
        return inside

    for sign, low, high in ((flip, 0.42, 0.80), (-flip, 0.30, 0.62)):
        along = x.clamp(min(0.0, sign * 0.25 * height), max(0.0, sign * 0.25 * height))
        bar = (x - along).square() + (y - low * height).square() < (0.065 * height) ** 2
        canvas.paint(bar, mix(leaf[1], leaf[0], 0.3))
        limb(sign * 0.25, low, high, 0.068 * height)
    limb(0.0, -0.05, 1.0, half)


KINDS: dict[str, tuple[Painter, float]] = {
    "pine": (_pine, 0.50),
    "round": (_round, 0.86),
    "poplar": (_poplar, 0.36),
    "palm": (_palm, 0.95),
    "cactus": (_cactus, 0.72),
}
"""Kind -> its painter and the width of its canvas as a share of the height."""
