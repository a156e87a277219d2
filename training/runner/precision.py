"""In which precision products of matrices are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def products(device: torch.device, *, half: bool) -> AbstractContextManager[object]:
    """In bfloat16 with `half`, where weights and sums stay float32; else as tensors are."""
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
