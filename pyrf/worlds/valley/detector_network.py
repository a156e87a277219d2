"""The small network that reads single frames: time, land, season, weather, and where a balloon is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.worlds.valley.attributes import BALLOONS, LANDS, SEASONS, TIMES, WEATHERS

CELL = 8
"""Pixels of a frame for each cell of the balloon's map."""
CLASSES: dict[str, tuple[str | None, ...]] = {
    "time": TIMES,
    "land": LANDS,
    "season": (None, *SEASONS),
    "weather": WEATHERS,
}
MAP_CLASSES: tuple[str | None, ...] = (None, *BALLOONS)


def half_size(frames: Tensor) -> Tensor:
    """uint8 [T, H, W, 3] -> float [T, 3, H/2, W/2] in 0..1."""
    return F.avg_pool2d(frames.permute(0, 3, 1, 2).float(), 2) / 255


def _block(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)
    )


class FrameReader(nn.Module):
    """Frames at half size -> logits. 0.3 million parameters."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        w = width
        self.fine = nn.Sequential(
            _block(3, w, 2), _block(w, w, 1), _block(w, 2 * w, 2), _block(2 * w, 2 * w, 1)
        )
        self.coarse = nn.Sequential(
            _block(2 * w, 3 * w, 2), _block(3 * w, 3 * w, 1), _block(3 * w, 4 * w, 2), _block(4 * w, 4 * w, 1)
        )
        self.map = nn.Conv2d(2 * w, len(MAP_CLASSES), 1)
        rows = 6
        self.heads = nn.ModuleDict(
            {name: nn.Linear(4 * w * (rows + 1), len(values)) for name, values in CLASSES.items()}
        )

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """x [B, 3, 96, 160] -> logits [B, classes] by attribute, and of the map [B, 1 + colours, 24, 40].

        The heads see the mean of each row of the picture, since lands differ by rows, and the maximum.
        """
        fine = self.fine(x)
        coarse = self.coarse(fine)
        seen = torch.cat([coarse.mean(3).flatten(1), coarse.amax((2, 3))], dim=1)
        return {name: head(seen) for name, head in self.heads.items()}, self.map(fine)
