"""Masks of the parallel training forwards: block-causal with a local window, and teacher forcing."""

from __future__ import annotations

import torch
from torch import Tensor


def _block_ends(num_frames: int, block_frames: int, first_frame: bool) -> Tensor:
    """For each frame, the first frame after its block."""
    if num_frames < 1 or block_frames < 1:
        raise ValueError(f"num_frames and block_frames must be positive, got {num_frames}, {block_frames}")
    lead = 1 if first_frame else 0
    frames = torch.arange(num_frames)
    ends = lead + ((frames - lead) // block_frames + 1) * block_frames
    if first_frame:
        ends[0] = 1
    return ends.clamp(max=num_frames)


def _per_token(frames: Tensor, tokens_per_frame: int) -> Tensor:
    """Repeat a mask over frames for the tokens of each frame."""
    return frames.repeat_interleave(tokens_per_frame, 0).repeat_interleave(tokens_per_frame, 1)


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
    ends = _block_ends(num_frames, block_frames, first_frame)[:, None]
    keys = torch.arange(num_frames)[None]
    seen = keys < ends
    if window_frames is not None:
        seen &= keys >= ends - window_frames
    mask = _per_token(seen, tokens_per_frame)
    return mask | torch.eye(len(mask), dtype=torch.bool)


def teacher_forcing_mask(num_frames: int, tokens_per_frame: int, block_frames: int) -> Tensor:
    """Mask for the sequence [clean; noisy], each ``num_frames`` long.

    Clean frames see clean frames up to their block's end; noisy frames see their own noisy block
    and the clean frames of the blocks before it.

    Returns:
        [2N, 2N] bool with N = num_frames * tokens_per_frame.
    """
    ends = _block_ends(num_frames, block_frames, False)[:, None]
    starts = torch.div(torch.arange(num_frames), block_frames, rounding_mode="floor")[:, None] * block_frames
    keys = torch.arange(num_frames)[None]
    clean = torch.cat((keys < ends, torch.zeros(num_frames, num_frames, dtype=torch.bool)), 1)
    noisy = torch.cat((keys < starts, (keys >= starts) & (keys < ends)), 1)
    return _per_token(torch.cat((clean, noisy)), tokens_per_frame)
