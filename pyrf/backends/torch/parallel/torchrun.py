"""Whether torchrun started this process as one of several. Free of torch."""

from __future__ import annotations

import os
from typing import Literal

TORCHRUN: Literal["torchrun"] = "torchrun"
"""In place of a number of ranks: those that torchrun started, this process among them."""


def torchrun_ranks() -> tuple[int, int] | None:
    """This process's rank and how many there are, where torchrun started it as one of several.

    Raises:
        ValueError: when they are on several machines.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    rank, count, here = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if here != count:
        raise ValueError("the ranks of a stream must be on one machine; give torchrun --nnodes 1")
    return (rank, count) if count > 1 else None
