"""float8 e4m3 (1 sign, 4 exponent, 3 fraction bits): rounding to it, and attention with its products."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
"""There is no infinity beyond it."""
WEIGHT_SCALE = 256.0
"""Of exp(score - largest score), 1 at most, before it is rounded: small ones keep bits."""
MAX_SCORES = 1 << 24
"""Scores of all heads that are held at a time."""
LEAST_LARGEST = 1e-12
"""A row's largest number counts as this at least, so that a row of zeros has a scale that divides."""


class QuantisedRows(NamedTuple):
    """Rows that are near ``rows`` times ``scales``.

    Attributes:
        rows: [..., D] e4m3.
        scales: [..., 1] float32.
    """

    rows: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the rows."""
        return self.rows.shape


def to_e4m3(x: Tensor) -> Tensor:
    """Round to the nearest e4m3, ties to even; what lies beyond ±448 becomes ±448, and NaN stays."""
    return x.clamp(-LARGEST, LARGEST).to(E4M3)


def plain_quantise_rows(x: Tensor) -> QuantisedRows:
    """`pyrf.ops.quantise_rows` by plain torch. 1 / scale is its only quotient, so all devices round alike."""
    x = x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp(min=LEAST_LARGEST) * (1 / LARGEST)
    return QuantisedRows(to_e4m3(x * scales.reciprocal()), scales)


def attend(q: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
    """Attention whose two products take e4m3 and sum in float32 (float64 for a float64 q); no gradient.

    q and the softmax's weights, scaled by 256, are rounded to e4m3. The weights are summed unrounded, as in
    FlashAttention-3 (arXiv 2407.08608, section 3.3). A GPU takes the largest score of the keys seen so far in
    place of the largest of all, and some sum with fewer bits: the result is near this one, not equal.

    Args:
        q: [B, heads, N, head_dim], any float dtype.
        keys, values: [B, heads, capacity, head_dim] e4m3.
        length: valid tokens.

    Returns:
        [B, heads, N, head_dim] in q's dtype.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    keys, values = (x.narrow(2, 0, length).to(wide) for x in (keys, values))
    scale = q.shape[3] ** -0.5
    rows = max(1, MAX_SCORES // (q.shape[0] * q.shape[1] * length))
    mixed = []
    for part in to_e4m3(q).to(wide).split(rows, 2):
        scores = (part @ keys.mT).mul_(scale)
        weights = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
        total = weights.sum(-1, keepdim=True).mul_(WEIGHT_SCALE)
        rounded = to_e4m3(weights.mul_(WEIGHT_SCALE)).to(wide)
        mixed.append((rounded @ values).div_(total))
    return torch.cat(mixed, 2).to(q.dtype)


def widened(q: Tensor, keys: Tensor, values: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, rounded as `attend` does, keys and values of the valid prefix: all in q's dtype."""
    keys, values = (x.narrow(2, 0, length).to(q.dtype) for x in (keys, values))
    return to_e4m3(q).to(q.dtype), keys, values
