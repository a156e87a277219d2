"""A training that has diverged is noticed before its weights are kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pyrf.training.runner import processes


class DivergedError(FloatingPointError, ValueError):
    """Weights, losses or gradients that are not finite. The message says what was kept and what to change."""


def check_finite(tensors: Mapping[str, Tensor], what: str, *, everywhere: bool = False) -> None:
    """Refuse tensors that hold an infinite value or not a number.

    Args:
        what: begins the message.
        everywhere: every process calls it, and all of them raise when one holds such a tensor.

    Raises:
        DivergedError: naming the first of them.
    """
    mine = next((name for name, tensor in tensors.items() if not _is_finite(tensor)), None)
    if names := [name for name in (processes.gather(mine) if everywhere else [mine]) if name is not None]:
        raise DivergedError(f"{what}: {names[0]} is not finite; look at the data, or lower the learning rate")


def _is_finite(tensor: Tensor) -> bool:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return bool(torch.isfinite(local).all())
