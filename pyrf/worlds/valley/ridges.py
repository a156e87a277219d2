"""The grounds: their outlines, their light and shade, and the haze over them.

All is a function of world columns u (float64, four samples a pixel, [SAMPLES, columns]) and rows y
(float32, [rows, 1, 1]), by the exact operations that `noise` speaks of.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrf.worlds.valley.layers import Layer
from pyrf.worlds.valley.noise import hashed, noise, smooth
from pyrf.worlds.valley.palette import SNOW, Ground, Light


def ridge(layer: Layer, u: Tensor) -> Tensor:
    """Row of the outline at world columns u, float64; smaller is higher. Not for peaks."""
    return layer.base - layer.rise * _PROFILES[layer.kind](layer, u)


def _rolling(layer: Layer, u: Tensor) -> Tensor:
    scale, seed = layer.scale, layer.seed
    height = 0.66 * noise(u / scale, seed) + 0.26 * noise(u / (0.45 * scale), seed + 101)
    return 2 * (height + 0.08 * noise(u / (0.21 * scale), seed + 102) - 0.35)


def _dune(layer: Layer, u: Tensor) -> Tensor:
    """Long slopes up, short ones down."""
    q = u / layer.scale + 0.35 * (noise(u / (0.8 * layer.scale), layer.seed) - 0.5)
    cell = q.floor()
    at = q - cell
    up = torch.where(at < 0.68, at / 0.68, (1 - at) / 0.32)
    crest = 0.45 + 0.55 * hashed(cell.long(), layer.seed + 105)
    return up * up * (1.9 - 0.9 * up) * crest + 0.30 * noise(q * 0.43, layer.seed + 106) - 0.15


def _mesa(layer: Layer, u: Tensor) -> Tensor:
    """Table mountains with a step and a foot of rubble; a quarter of the places stay empty."""
    q = u / layer.scale
    cell = q.floor()
    cells, seed = cell.long(), layer.seed
    away = (q - cell - 0.35 - 0.3 * hashed(cells, seed)).abs()
    width = 0.12 + 0.15 * hashed(cells, seed + 1)
    height = hashed(cells, seed + 2)
    height = torch.where(height < 0.25, 0.0, 0.35 + 0.65 * height)
    body = ((width - away) / 0.05 + 0.5).clamp(0, 1) * (1 - 0.14 * (away >= 0.55 * width).float())
    foot = (1 - away / (width + 0.2)).clamp(0, 1)
    return (height * torch.maximum(body, 0.38 * foot * foot)).clamp(0, 1)


def _isles(layer: Layer, u: Tensor) -> Tensor:
    q = u / layer.scale
    land = ((noise(q, layer.seed) - 0.42) / 0.58).clamp(0, 1)
    land = land * (2 - land)
    shape = 0.78 * noise(2.1 * q, layer.seed + 1) + 0.34 * noise(4.3 * q, layer.seed + 2)
    return 1.2 * land * shape - 0.03


_PROFILES = {"rolling": _rolling, "dune": _dune, "mesa": _mesa, "isles": _isles}


class Shading:
    """Colours of a layer in a scene's light.

    Args:
        woods: whether distant woods grow on the hills.
    """

    def __init__(self, layer: Layer, ground: Ground, light: Light, *, woods: bool) -> None:
        self.layer, self.light, self.ground, self.woods = layer, light, ground, woods
        self.rock = light.lit_and_shaded(ground.rock)
        self.grass = light.lit_and_shaded(ground.grass)
        self.wood = light.lit_and_shaded(ground.wood)
        self.snow = light.lit_and_shaded(SNOW)

    def paint(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Colour [3, rows, SAMPLES, columns] and opacity [rows, SAMPLES, columns] of the ground."""
        if self.layer.kind == "peaks":
            return self._peaks(u, y)
        below = (y - ridge(self.layer, u)).float()
        alpha = (below + 0.5).clamp(0, 1)
        paint = {
            "rolling": self._rolling,
            "dune": self._dune,
            "mesa": self._mesa,
            "isles": self._isles,
        }[self.layer.kind]
        return paint(u, y, below), alpha

    def _blend(self, colors: tuple[Tensor, Tensor], lit: Tensor) -> Tensor:
        """Between a colour's shaded and lit form: lit [...] -> [3, ...]."""
        return _column(colors[1], lit) + _column(colors[0] - colors[1], lit) * lit

    def _hazed(self, color: Tensor, share: Tensor | float) -> Tensor:
        return color + (_column(self.light.haze, color) - color) * share

    def _depth_haze(self, below: Tensor) -> Tensor:
        """Haze that grows from the ridge down, towards the foot."""
        layer = self.layer
        mist = layer.mist * smooth(below, 4, 40 + 20 * layer.parallax)
        return layer.haze + (1 - layer.haze) * mist

    def _rolling(self, u: Tensor, y: Tensor, below: Tensor) -> Tensor:
        layer, seed = self.layer, self.layer.seed
        reach = 30 + 16 * layer.parallax
        slope = (ridge(layer, u + 6) - ridge(layer, u - 6)).float() / 12
        facing = (0.9 * self.light.side * slope).clamp(-0.3, 0.3)
        away = (below / reach).clamp(0, 1)
        lit = (0.98 + facing * (1 - away) - 0.85 * away).clamp(0.1, 1)
        color = self._blend(self.grass, lit)
        if self.woods and layer.parallax < 1:
            wood = torch.maximum(
                _patches(u, below, 0.95 * layer.scale, (6, 22), 0.7, seed + 111),
                _patches(u, below, 0.62 * layer.scale, (10, 28), 0.6, seed + 116),
            )
            color = color + (self._blend(self.wood, lit) - color) * (0.6 * wood)
        if layer.parallax < 1:
            return self._hazed(color, self._depth_haze(below))
        return self._foreground(color, u, y, below)

    def _foreground(self, color: Tensor, u: Tensor, y: Tensor, below: Tensor) -> Tensor:
        """The nearest ground: broad tufts, and darker towards the viewer."""
        seed = self.layer.seed
        tufts = torch.maximum(
            _patches(u, below, 84, (7, 24), 0.8, seed + 121),
            _patches(u, below, 127, (10, 30), 0.8, seed + 126),
        )
        dark = 1 - 0.30 * smooth(y, 150, 196) * smooth(below, 0, 16)
        return color * (dark * (1 - 0.13 * tufts))

    def _dune(self, u: Tensor, y: Tensor, below: Tensor) -> Tensor:
        """The side away from the sun lies in shade, which hangs from the crest, leans, and fades out."""
        layer, side = self.layer, self.light.side
        margin = 40
        low = math.floor(float(u[0, 0])) - margin
        grid = torch.arange(2 * (u.shape[1] + 2 * margin), dtype=torch.float64, device=u.device) / 2 + low
        slope = (ridge(layer, grid + 0.5) - ridge(layer, grid - 0.5)).float() * side
        table = smooth(slope, -0.22, 0.22)
        lean = (0.55 * side) * below.clamp(0, 60)
        index = ((u - low).float() * 2 - 2 * lean).long().clamp(0, len(table) - 1)
        away = (below / (30 + 16 * layer.parallax)).clamp(0, 1)
        lit = table[index] * (1 - away) + 0.72 * away
        color = self._blend(self.grass, lit)
        if layer.parallax < 1:
            return self._hazed(color, self._depth_haze(below))
        return self._foreground(color, u, y, below)

    def _mesa(self, u: Tensor, y: Tensor, below: Tensor) -> Tensor:
        """Layers of stone, and one side in shade."""
        layer = self.layer
        wave = ((y - layer.base) / 9.0 + 0.6 * noise(u / 40, layer.seed + 9).float()) % 1.0
        bands = 0.16 * ((wave - 0.5).abs() * 8 - 2).clamp(-1, 1)
        slope = (ridge(layer, u + 5) - ridge(layer, u - 5)).float() / 10
        lit = (0.55 + bands + (0.5 * self.light.side * slope).clamp(-0.35, 0.35)).clamp(0, 1)
        return self._hazed(self._blend(self.rock, lit), self._row_haze(y))

    def _isles(self, u: Tensor, y: Tensor, below: Tensor) -> Tensor:
        layer = self.layer
        slope = (ridge(layer, u + 2.5) - ridge(layer, u - 2.5)).float() / 5
        away = (below / 20).clamp(0, 1)
        lit = (0.62 + (0.9 * self.light.side * slope).clamp(-0.45, 0.45) - 0.25 * away).clamp(0, 1)
        return self._hazed(self._blend(self.rock, lit), self._row_haze(y))

    def _row_haze(self, y: Tensor) -> Tensor:
        """Haze that lies in the valleys, as high everywhere."""
        layer = self.layer
        mist = layer.mist * smooth(y, layer.base - 0.55 * layer.rise - 6, layer.base - 2)
        return layer.haze + (1 - layer.haze) * mist

    def _peaks(self, u: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Peaks one by one, the highest first: lower ones stand in front. One facet of each is lit."""
        layer, seed = self.layer, self.layer.seed
        columns = u.shape[1]
        up = layer.base - y
        foothills = layer.rise * (0.10 + 0.16 * noise(u / 60, seed + 108)).float()
        alpha = (foothills - up + 0.5).clamp(0, 1)
        color = self._blend(self.rock, torch.full_like(alpha, 0.45))
        jags = layer.roughness * (
            4.6 * (noise(u / 13, seed + 103, linear=True) - 0.5)
            + 2.0 * (noise(u / 5.5, seed + 104, linear=True) - 0.5)
        )
        first = math.floor(float(u[0, 0]) / layer.scale) - 2
        last = math.floor(float(u[-1, -1]) / layer.scale) + 3
        cells = torch.arange(first, last, dtype=torch.int64, device="cpu")
        centres = ((cells.float() + 0.15 + 0.7 * hashed(cells, seed)) * layer.scale).tolist()
        heights = (layer.rise * (0.42 + 0.58 * hashed(cells, seed + 1))).tolist()
        slopes = (0.60 + 0.42 * hashed(cells, seed + 2)).tolist()
        order = sorted(range(len(cells)), key=lambda i: -heights[i])
        for i in order:
            centre, height, slope = centres[i], heights[i], slopes[i]
            reach = height / slope + 8
            left = max(0, math.floor(centre - reach - float(u[0, 0])))
            right = min(columns, math.ceil(centre + reach - float(u[0, 0])) + 1)
            if left >= right:
                continue
            away = (u[:, left:right] - centre).float()
            distance = away.abs()
            jag = jags[:, left:right].float() * (slope * distance / 10 + 0.15).clamp(0, 1)
            inside = (height - slope * distance + jag - up + 0.5).clamp(0, 1)
            down = (height - up).clamp(min=0)
            edge = self._facet_edge(down, seed + 7 * int(cells[i]))
            lit = ((away * self.light.side - edge) * 0.8 + 0.5).clamp(0, 1)
            stone = self._blend(self.rock, lit)
            if self.ground.snow > 0:
                line = (0.62 * self.ground.snow + 0.05) * layer.rise
                teeth = 9 * (noise(u[:, left:right] / 7.5, seed + 110, linear=True) - 0.5).float()
                cap = ((line + teeth - down - 0.35 * distance) * 0.6 + 0.5).clamp(0, 1)
                stone = stone + (self._blend(self.snow, lit) - stone) * cap
            part = color[..., left:right]
            part += (stone - part) * inside
            alpha[..., left:right] = torch.maximum(alpha[..., left:right], inside)
        return self._hazed(color, self._row_haze(y)), alpha

    def _facet_edge(self, down: Tensor, seed: int) -> Tensor:
        """Pixels that the edge between two facets lies aside, for rows below the peak."""
        rows = down.double()
        bend = 1.5 * (noise(rows / 11, seed, linear=True) - 0.5)
        return (rows * 0.55 * (bend + 0.4 * (noise(rows / 4.5, seed + 1, linear=True) - 0.5))).float()


def _column(color: Tensor, like: Tensor) -> Tensor:
    """[3] -> [3, 1, 1, 1] on the device of `like`."""
    return color.to(like.device)[:, None, None, None]


def _patches(
    u: Tensor, below: Tensor, cell: float, rows: tuple[float, float], share: float, seed: int
) -> Tensor:
    """Flat ellipses with soft rims, at most one in each `cell` pixels: opacity like `below`.

    rows: how far below the ridge their middles lie.
    """
    q = u / cell
    cells = q.floor().long()
    centre = (cells.float() + 0.32 + 0.36 * hashed(cells, seed)) * cell
    half = cell * (0.17 + 0.14 * hashed(cells, seed + 1))
    across = (u - centre) / half
    middle = rows[0] + (rows[1] - rows[0]) * hashed(cells, seed + 2)
    is_there = (hashed(cells, seed + 3) < share).double()
    limit = ((1 - across * across) * is_there - (1 - is_there)).float()
    down = (below - middle.float()) * (1 / (0.20 * half)).float()
    return ((limit - down * down) * 1.2).clamp(0, 1)
