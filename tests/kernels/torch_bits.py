"""Torch tensors of 16 bits and of e4m3 as the numpy bits that the emulator takes, sharing memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyrf.ops.e4m3 import E4M3

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def bits(x: Tensor) -> np.ndarray:
    """A tensor as numpy; 16-bit floats as uint16, e4m3 as uint8."""
    if x.dtype == E4M3:
        return x.view(torch.uint8).numpy()
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype in DTYPES.values() else x.numpy()


def draw(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Random normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def angles(*shape: int, seed: int = 0) -> Tensor:
    """A float32 table of cosines and sines, [*shape, 2]."""
    angle = 3 * draw(*shape, dtype=torch.float64, seed=seed)
    return torch.stack((angle.cos(), angle.sin()), -1).float()


def shift(x: Tensor) -> Tensor:
    """The same numbers, one element past an aligned address."""
    room = torch.empty(x.numel() + 1, dtype=x.dtype)
    room[1:] = x.flatten()
    return room[1:].view(x.shape)


def transposed(x: Tensor) -> Tensor:
    """The same numbers, with another dimension than the last contiguous in memory."""
    return x.mT.contiguous().mT


def padded(x: Tensor) -> Tensor:
    """The same numbers, in rows that are not whole 16 bytes apart."""
    return torch.nn.functional.pad(x, (0, 4))[..., :-4]
