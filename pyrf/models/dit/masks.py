"""The mask of teacher forcing: parallel forwards over a clean past and a noisy present."""

from __future__ import annotations

import torch
from torch import Tensor


def teacher_forcing_mask(num_frames: int, tokens_per_frame: int, block_frames: int) -> Tensor:
    """Mask for the sequence [clean; noisy], each ``num_frames`` long.

    Clean frames see clean frames up to their block's end; noisy frames see their own noisy block
    and the clean frames of the blocks before it.

    Returns:
        [2N, 2N] bool with N = num_frames * tokens_per_frame.
    """
    keys = torch.arange(num_frames, dtype=torch.int64, device="cpu")
    starts = torch.div(keys, block_frames, rounding_mode="floor")[:, None] * block_frames
    ends = starts + block_frames
    clean = torch.cat((keys < ends, torch.zeros(num_frames, num_frames, dtype=torch.bool, device="cpu")), 1)
    noisy = torch.cat((keys < starts, (keys >= starts) & (keys < ends)), 1)
    mask = torch.cat((clean, noisy))
    return mask.repeat_interleave(tokens_per_frame, 0).repeat_interleave(tokens_per_frame, 1)
