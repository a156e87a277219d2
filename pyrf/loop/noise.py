"""Random numbers of a generator, whatever defaults the host program has set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gauss(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Gaussian noise of a shape, float32 on the CPU."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1) of a shape, float32 on the CPU."""
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def below(limit: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Whole numbers in 0..limit - 1 of a shape, int64 on the CPU."""
    return torch.randint(limit, tuple(shape), generator=generator, dtype=torch.int64, device="cpu")
