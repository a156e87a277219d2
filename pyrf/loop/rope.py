"""Rotary positions: by what angles the channel pairs of a head turn with frame, row and column.

Angles are formed in float64 on the host, so that positions of any size stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrf.config import LatentSize, ModelConfig


def _turns(positions: Tensor, pairs: int, theta: float) -> Tensor:
    """Cosines and sines of float64 positions [n]: [n, pairs, 2]."""
    frequencies = theta ** (-torch.arange(pairs, dtype=torch.float64, device="cpu") / max(pairs, 1))
    angles = torch.outer(positions, frequencies)
    return torch.stack((angles.cos(), angles.sin()), -1)


def rope_table(
    model: ModelConfig,
    frame_positions: Sequence[float],
    size: LatentSize,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    out: Tensor | None = None,
) -> Tensor:
    """The rotation of every token of some latent frames.

    Args:
        model: sizes of the network.
        frame_positions: [F] on the host, the index of each latent frame in its stream.
        size: of the latents.
        dtype: of computation; the table is in float32 at least.
        device: of the table.
        out: a table of as many frames, to be overwritten.

    Returns:
        Cosines and sines, [F * size.tokens, head_dim / 2, 2].
    """
    grid = (len(frame_positions), size.rows, size.columns)
    frames = torch.tensor(frame_positions, dtype=torch.float64, device="cpu")
    rows, columns = (torch.arange(n, dtype=torch.float64, device="cpu") for n in grid[1:])
    parts = []
    for axis, (positions, pairs) in enumerate(zip((frames, rows, columns), model.rope_pairs)):
        turns = _turns(positions, pairs, model.rope_theta)
        turns = turns.to(device=device, dtype=torch.promote_types(dtype, torch.float32))
        shape = [1, 1, 1, pairs, 2]
        shape[axis] = grid[axis]
        parts.append(turns.view(shape).expand(*grid, pairs, 2))
    whole = None if out is None else out.view(*grid, -1, 2)
    return torch.cat(parts, 3, out=whole).flatten(0, 2)


def chunk_turn(model: ModelConfig, frames: int, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """The rotation of the time pairs by `frames` latent frames: cosines and sines, [pairs, 2]."""
    positions = torch.tensor([frames], dtype=torch.float64, device="cpu")
    turns = _turns(positions, model.rope_pairs[0], model.rope_theta)
    return turns[0].to(device=device, dtype=dtype)


class ChunkRope:
    """The `rope_table` of one chunk at a time, always in the same tensor, so that a captured graph finds it.

    Args:
        model, size, dtype, device: see `rope_table`.
    """

    def __init__(
        self, model: ModelConfig, size: LatentSize, *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self.model, self.size = model, size
        self.dtype, self.device = dtype, device
        self._table: Tensor | None = None
        self._positions: range | None = None

    def at(self, frame_positions: range) -> Tensor:
        """The table of these latent frames; it holds until others, as many, are asked for."""
        if self._table is None or self._positions != frame_positions:
            self._table = rope_table(
                self.model,
                frame_positions,
                self.size,
                dtype=self.dtype,
                device=self.device,
                out=self._table,
            )
            self._positions = frame_positions
        return self._table
