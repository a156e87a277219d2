"""The values of weights: which ones no network can have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, *FLOAT8)
"""What weights are stored in. Other floating types, as float8_e8m0fnu, hold only scales of weights."""

SCALED = 0.5
"""Share of its type's range from which on a float8 weight was scaled to that range; it is never so large."""


def holds_weights(tensor: Tensor) -> bool:
    """Whether a tensor has a type that weights are stored in."""
    return tensor.dtype in FLOATS


def problem_of(found: Tensor, loaded: Tensor) -> str | None:
    """Why a weight's values would make every picture meaningless; None when they are good.

    The loaded copy is read once, while it is warm. Nothing of its size is made unless there is a problem.

    Args:
        found: a weight as it lies in a file.
        loaded: its copy in the network's dtype, on the network's device.

    Returns:
        Whether values are infinite or not a number, do not fit the network's dtype, or are those of a
        float8 file that has lost its scales. The sentence begins with "has".
    """
    if not loaded.numel():
        return None
    low, high = torch.aminmax(loaded.float() if loaded.dtype in FLOAT8 else loaded)
    largest = max(-float(low), float(high)) if low == low else math.nan
    if not math.isfinite(largest):
        return _why_not_finite(found, loaded)
    if found.dtype in FLOAT8 and largest >= SCALED * torch.finfo(found.dtype).max:
        return (
            f"has {found.dtype} values up to {largest:g}: they were scaled to the range of that type, "
            "and the file has lost their scales; take it as it was before it was converted"
        )
    return None


def _why_not_finite(found: Tensor, loaded: Tensor) -> str:
    values = found.float() if found.dtype in FLOAT8 else found
    if bad := int((~torch.isfinite(values)).sum()):
        return (
            f"has {bad} of {found.numel()} values that are infinite or not a number; the file is damaged "
            "or its training diverged: fetch it again, or take an earlier checkpoint"
        )
    return (
        f"has values up to {float(values.abs().max()):g}, which do not fit into {loaded.dtype}; "
        "load the model with a dtype of a larger range"
    )
