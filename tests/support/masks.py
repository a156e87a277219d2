"""The masks of a causal network over a whole clip, as the official code forms them, and attention by them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrf.models.dit.attention import BidirectionalAttention


class MaskedAttention(BidirectionalAttention):
    """mask: [N, N] bool, true where the query (row) may see the key (column)."""

    def __init__(self, rope: Tensor, mask: Tensor) -> None:
        super().__init__(rope)
        self.mask = mask

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)


def block_causal_mask(
    num_frames: int,
    tokens_per_frame: int,
    block_frames: int,
    *,
    window_frames: int | None = None,
    first_frame: bool = False,
) -> Tensor:
    """Frames of a block see the block and the frames before it.

    Args:
        window_frames: how many frames, counted back from the block's end, a query sees. A query
            always sees itself.
        first_frame: the first frame is a block of its own.

    Returns:
        [N, N] bool with N = num_frames * tokens_per_frame.
    """
    lead = 1 if first_frame else 0
    frames = torch.arange(num_frames)
    ends = lead + (torch.div(frames - lead, block_frames, rounding_mode="floor") + 1) * block_frames
    ends = ends.clamp(max=num_frames)[:, None]
    keys = frames[None]
    seen = keys < ends
    if window_frames is not None:
        seen &= keys >= ends - window_frames
    mask = seen.repeat_interleave(tokens_per_frame, 0).repeat_interleave(tokens_per_frame, 1)
    return mask | torch.eye(len(mask), dtype=torch.bool)
