"""What a training sets for the whole process, and puts back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyrf.loop.inference import unmixed


@contextmanager
def of_a_training(seed: int, threads: int) -> Iterator[None]:
    """Inside, new networks are float32 on the CPU, drawn from a seed, whatever the host program has set.

    Args:
        seed: of torch's own generator, which draws initial weights.
        threads: of the CPU.
    """
    dtype, were = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(), torch.device("cpu"), torch.enable_grad(), unmixed():
            torch.set_default_dtype(torch.float32)
            torch.set_num_threads(threads)
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(were)
