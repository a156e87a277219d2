"""Small pictures drawn four samples a pixel each way: trees, clouds, the balloon.

A picture is painted from shapes with hard edges, the last on top; boxes of samples then make it smooth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 4
"""Of a pixel, each way."""


@dataclass
class Canvas:
    """A picture under way.

    Attributes:
        height, width: pixels.
        x, y: [rows, 1] and [1, columns] of samples: pixels right of the middle, and up from the foot.
        rgba: premultiplied, float32 [4, rows, columns].
    """

    height: int
    width: int
    x: Tensor = field(init=False)
    y: Tensor = field(init=False)
    rgba: Tensor = field(init=False)

    def __post_init__(self) -> None:
        columns, rows = self.width * SAMPLES, self.height * SAMPLES
        self.x = (
            (torch.arange(columns, dtype=torch.float32, device="cpu") + 0.5) / SAMPLES - self.width / 2
        )[None]
        self.y = (self.height - (torch.arange(rows, dtype=torch.float32, device="cpu") + 0.5) / SAMPLES)[
            :, None
        ]
        self.rgba = torch.zeros(4, rows, columns, dtype=torch.float32, device="cpu")

    def paint(self, where: Tensor, color: Tensor) -> None:
        """Cover samples.

        where: opacity, bool or float [rows, columns]; color: [3] or [3, rows, columns] in 0..1.
        """
        color = color[:, None, None] if color.ndim == 1 else color
        self.rgba[:3] += (color - self.rgba[:3]) * where
        self.rgba[3] += (1 - self.rgba[3]) * where

    def for_strip(self) -> Tensor:
        """Smooth along y, still samples along x: [4, height, SAMPLES, width], phase before column."""
        rows = self.rgba.unflatten(1, (self.height, SAMPLES)).mean(2)
        return rows.unflatten(2, (self.width, SAMPLES)).movedim(3, 2).contiguous()

    def at_all_phases(self) -> Tensor:
        """The picture moved right and down by 0..3 quarters of a pixel: [4, 4, 4, height + 1, width + 1].

        The axes are quarters down, quarters right, RGBA, rows, columns.
        """
        pad = F.pad(self.rgba, (SAMPLES, SAMPLES, SAMPLES, SAMPLES))
        rows, columns = (self.height + 1) * SAMPLES, (self.width + 1) * SAMPLES
        return torch.stack(
            [
                torch.stack(
                    [
                        F.avg_pool2d(pad[:, down : down + rows, right : right + columns], SAMPLES)
                        for right in range(SAMPLES, 0, -1)
                    ]
                )
                for down in range(SAMPLES, 0, -1)
            ]
        )
