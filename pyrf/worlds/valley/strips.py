"""Strips of a layer: what a moving camera sees of it, drawn once and then cut out frame by frame."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrf.worlds.valley.layers import Grove, Layer
from pyrf.worlds.valley.noise import hashed
from pyrf.worlds.valley.ridges import Shading, ridge
from pyrf.worlds.valley.sprites import SAMPLES
from pyrf.worlds.valley.trees import tree

VARIANTS = 3
"""Different trees in a line."""


@dataclass(frozen=True)
class Strip:
    """A stretch of a layer at each quarter of a pixel.

    Attributes:
        color: premultiplied, in levels, see `levels`: float32 [SAMPLES, 3, rows, columns].
        through: one less the opacity, float32 [SAMPLES, rows that are not all ground, columns].
        top: first row.
        left: world column of the first one.
    """

    color: Tensor
    through: Tensor
    top: int
    left: int

    def onto(self, frame: Tensor, offset: float) -> None:
        """Draw over `frame` [3, H, W], whose left edge is at world column `offset`, in quarter pixels."""
        at = round((offset - self.left) * SAMPLES)
        column, phase = at // SAMPLES, at % SAMPLES
        soft, rows = self.through.shape[1], self.color.shape[2]
        width = frame.shape[2]
        color = self.color[phase, :, :, column : column + width]
        part = frame[:, self.top : self.top + soft]
        part *= self.through[phase, :, column : column + width]
        part += color[:, :soft]
        if rows > soft:
            frame[:, self.top + soft : self.top + rows] = color[:, soft:]


def span(offsets: list[float], width: int) -> tuple[int, int]:
    """First world column and number of columns that frames at these offsets show."""
    left = math.floor(min(offsets)) - 1
    return left, math.ceil(max(offsets)) - left + width + 2


def levels(color: Tensor, alpha: Tensor) -> Tensor:
    """Premultiplied colour in 0..1 -> levels of 0..255 with half a level more, so that cutting rounds."""
    return color * 255 + 0.5 * alpha


def phases(samples: Tensor) -> Tensor:
    """Boxes of SAMPLES from each sample on: [..., SAMPLES, columns + 1] -> [SAMPLES, ..., columns]."""
    here, then = samples[..., :-1], samples[..., 1:]
    (a, b, c, d), (e, f, g, _) = here.unbind(-2), then.unbind(-2)
    first, last = a + b, c + d
    again = e + f
    boxes = (first + last, b + last + e, last + again, d + again + g)
    return torch.stack(boxes) * (1 / SAMPLES)


class Painter:
    """Draws strips of one layer.

    Args:
        bottom: the first row that nearer ground hides everywhere.
        snowy: whether snow lies on the trees.
    """

    def __init__(
        self, layer: Layer, shading: Shading, bottom: int, rng: random.Random, *, snowy: bool
    ) -> None:
        self.layer, self.shading = layer, shading
        self.trees = [self._variants(grove, rng, snowy=snowy) for grove in layer.groves]
        tallest = max((sprite.shape[1] for line in self.trees for sprite in line), default=0)
        self.top = max(0, layer.top - max(0, tallest - 2)) if layer.groves else layer.top
        self.soft_end = min(layer.foot, bottom)
        self.bottom = bottom

    def _variants(self, grove: Grove, rng: random.Random, *, snowy: bool) -> list[Tensor]:
        ground, light = self.shading.ground, self.shading.light
        sprites = []
        for n in range(VARIANTS):
            share = (n + rng.random()) / VARIANTS
            leaf = ground.leaf + (ground.other_leaf - ground.leaf) * share
            height = grove.height * rng.uniform(0.82, 1.12)
            sprites.append(
                tree(grove.kind, height, leaf, light, rng, snowy=snowy, haze=0.9 * self.layer.haze)
            )
        return sprites

    def strip(self, left: int, columns: int, device: torch.device) -> Strip:
        """Columns left..left + columns - 1 of the layer's world."""
        whole = torch.arange(left, left + columns + 1, dtype=torch.float64, device=device)
        offsets = torch.arange(SAMPLES, dtype=torch.float64, device=device) / SAMPLES
        u = whole + offsets[:, None]
        y = torch.arange(self.top, self.bottom, dtype=torch.float32, device=device)[:, None, None] + 0.5
        color, alpha = self.shading.paint(u, y)
        rgba = torch.cat([levels(color, torch.ones_like(alpha)) * alpha, alpha[None]])
        for number, (grove, sprites) in enumerate(zip(self.layer.groves, self.trees)):
            self._plant(rgba, grove, sprites, left, self.layer.seed + 201 + 10 * number)
        boxes = phases(rgba)
        soft = self.soft_end - self.top
        return Strip(boxes[:, :3], 1 - boxes[:, 3, :soft], self.top, left)

    def _plant(self, rgba: Tensor, grove: Grove, sprites: list[Tensor], left: int, seed: int) -> None:
        """Paste the trees of a line, each on a whole pixel."""
        columns = rgba.shape[3]
        reach = max(sprite.shape[3] for sprite in sprites)
        first = math.floor((left - reach) / grove.gap) - 1
        last = math.floor((left + columns + reach) / grove.gap) + 2
        cells = torch.arange(first, last, dtype=torch.int64, device="cpu")
        # groves come and go along the ridge
        dense = 0.6 + 0.8 * hashed(cells.div(4, rounding_mode="floor"), seed)
        places = (cells.float() + 0.2 + 0.6 * hashed(cells, seed + 1)) * grove.gap
        taken = (hashed(cells, seed + 2) < grove.share * dense).tolist()
        kinds = (hashed(cells, seed + 3) * len(sprites)).long().tolist()
        places = places.floor()
        feet = ridge(self.layer, places) + grove.depth * hashed(cells, seed + 4)
        for is_there, kind, place, foot in zip(taken, kinds, places.long().tolist(), feet.tolist()):
            if is_there:
                sprite = sprites[kind]
                _, height, _, width = sprite.shape
                column, row = place - left - width // 2, math.floor(foot) + 3 - height - self.top
                paste(rgba, sprite.to(rgba.device), column, row)


def paste(rgba: Tensor, sprite: Tensor, column: int, row: int) -> None:
    """Draw a sprite [4, h, SAMPLES, w] over a strip's samples [4, H, SAMPLES, W], where they overlap."""
    _, height, _, width = sprite.shape
    rows = slice(max(0, row), min(rgba.shape[1], row + height))
    columns = slice(max(0, column), min(rgba.shape[3], column + width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    cut = sprite[:, rows.start - row : rows.stop - row, :, columns.start - column : columns.stop - column]
    part = rgba[:, rows, :, columns]
    part *= 1 - cut[3]
    part[:3] += levels(cut[:3], cut[3])
    part[3] += cut[3]
