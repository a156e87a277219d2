"""Computing without gradients and in the dtypes that tensors have, whatever the host program has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_DEVICES = ("cpu", "cuda")


@contextmanager
def unmixed() -> Iterator[None]:
    """Inside, a host program's autocast changes no dtype."""
    were = {device: torch.is_autocast_enabled(device) for device in _DEVICES}
    try:
        for device in _DEVICES:
            torch.set_autocast_enabled(device, False)
        yield
    finally:
        for device, was in were.items():
            torch.set_autocast_enabled(device, was)


@contextmanager
def inference() -> Iterator[None]:
    """Inside, nothing is recorded for gradients, and a host program's autocast changes no dtype."""
    with torch.inference_mode(), unmixed():
        yield
