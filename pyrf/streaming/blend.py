"""Text rows of weighted prompts and of transitions, chunk by chunk.

Rows are blended one by one, in float32: their directions on the sphere, their norms linearly. So a blend is
as long as what it is made of. A prompt of fewer tokens ends in rows of zeros, which have no direction. Beside
such a row the other one keeps its direction and is scaled by its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrf.streaming.mix import ClipPrompt, texts_of
from pyrf.streaming.prompts import PromptChange

Encode = Callable[[list[str]], Tensor]
"""B texts to their rows, [B, text_len, text_dim]."""

_FLAT = 1e-3
"""The sine of an angle below which a circle is a line, in float32."""
_LOST = 1e-5
"""A mean of rows that is shorter than this share of them has cancelled out."""


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Rows on the way from one to another: directions by spherical interpolation, norms linearly.

    Rows of opposite directions have no shortest way between them, and are mixed linearly.

    Args:
        start, end: [..., D] of one shape, dtype and device.
        share: of the way, 0..1; at both ends the rows come back as they are.

    Returns:
        Rows of that shape, dtype and device. A row beside a row of zeros is scaled.
    """
    if share in (0.0, 1.0):
        return end if share else start
    a, b = start.float(), end.float()
    norm_a, norm_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / norm_a.clamp_min(1e-20), b / norm_b.clamp_min(1e-20)
    unit_a, unit_b = torch.where(norm_a == 0, unit_b, unit_a), torch.where(norm_b == 0, unit_a, unit_b)
    # The angle from both chords: exact where a cosine of nearly 1 or -1 is not.
    apart, together = (x.norm(dim=-1, keepdim=True) for x in (unit_a - unit_b, unit_a + unit_b))
    angle = 2 * torch.atan2(apart, together)
    sine = angle.sin()
    flat = sine.abs() < _FLAT
    sine = sine.masked_fill(flat, 1.0)
    from_a = (((1 - share) * angle).sin() / sine).masked_fill(flat, 1 - share)
    from_b = ((share * angle).sin() / sine).masked_fill(flat, share)
    norm = (1 - share) * norm_a + share * norm_b
    return (norm * (from_a * unit_a + from_b * unit_b)).to(start.dtype)


def mean(rows: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted mean of rows, scaled to the weighted mean of their norms.

    Args:
        rows: [N, ..., D].
        weights: N, of sum 1.

    Returns:
        [..., D] in the dtype of the rows. Rows that cancel out stay what their mean is.
    """
    x = rows.float()
    w = torch.tensor(weights, dtype=torch.float32, device=rows.device).view(-1, *[1] * (rows.ndim - 1))
    mixed, norm = (w * x).sum(0), (w * x.norm(dim=-1, keepdim=True)).sum(0)
    length = mixed.norm(dim=-1, keepdim=True)
    lost = length <= _LOST * norm
    scale = (norm / length.masked_fill(lost, 1.0)).masked_fill(lost, 1.0)
    return (mixed * scale).to(rows.dtype)


def blend(rows: Tensor, weights: Sequence[float]) -> Tensor:
    """Two prompts by `slerp`, more of them by `mean`: rows [N, T, D] and N weights of sum 1 to [T, D]."""
    if len(weights) == 2:
        return slerp(rows[0], rows[1], weights[1])
    return mean(rows, weights)


class Step(NamedTuple):
    """What a chunk's rows change to.

    Attributes:
        rows: [B, text_len, text_dim].
        recache: whether the window is to be run again under them.
    """

    rows: Tensor
    recache: bool


class PromptRows:
    """The text rows of a stream's prompts, from chunk to chunk.

    A change over n chunks shows (i + 1) / n of the way at its chunk i, so its first chunk differs already and
    its last one has the rows of the new prompt, bit for bit. A change on the way begins where the rows are.

    Args:
        encode: texts to rows.
        first: the prompts of chunk 0.

    Attributes:
        prompts: that are shown, or turned to.
        progress: how far the chunk's rows have turned to them, 1 being wholly.
        rows: of the chunk, [B, text_len, text_dim].
    """

    def __init__(self, encode: Encode, first: PromptChange) -> None:
        self._encode = encode
        self._known: dict[str, Tensor] = {}
        self.prompts, self.progress = first.prompts, 1.0
        self.rows = self._rows_of(first.prompts)
        self._from = self._to = self.rows
        self._step = self._steps = 1
        self._recache = False

    def _rows_of(self, prompts: Sequence[ClipPrompt]) -> Tensor:
        """Rows of a prompt for each clip, [B, T, D]; texts that the last change had are not encoded again."""
        known: dict[str, Tensor] = {}
        for text in dict.fromkeys(text for prompt in prompts for text in texts_of(prompt)):
            known[text] = self._known[text] if text in self._known else self._encode([text])[0]
        self._known = known
        return torch.stack([self._clip(prompt) for prompt in prompts])

    def _clip(self, prompt: ClipPrompt) -> Tensor:
        if isinstance(prompt, str):
            return self._known[prompt]
        return blend(torch.stack([self._known[text] for text, _ in prompt]), [weight for _, weight in prompt])

    def advance(self, change: PromptChange | None) -> Step | None:
        """Go on to the next chunk.

        Args:
            change: that takes effect there, if there is one.

        Returns:
            What is to be put in force; None where the rows stay.
        """
        if change is not None:
            self.prompts = change.prompts
            self._from, self._to = self.rows, self._rows_of(change.prompts)
            self._step, self._steps, self._recache = 0, change.chunks, change.recache
        if self._step == self._steps:
            return None
        self._step += 1
        self.progress = self._step / self._steps
        self.rows = slerp(self._from, self._to, self.progress)
        is_last = self._step == self._steps
        if is_last:
            self._from = self._to  # the old rows are not held any longer
        return Step(self.rows, self._recache and is_last)
