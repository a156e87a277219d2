"""How many CPU threads torch and ONNX Runtime use: no more than there are CPUs, unless they are asked for."""

from __future__ import annotations

import os
import warnings

from pyrf.machine import affinity, available_cpus

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""By which the user sets the number of threads from outside."""

_asked: int | None = None


def set_threads(threads: int) -> None:
    """Have torch compute with this many threads in this process."""
    global _asked
    import torch

    _asked = threads
    torch.set_num_threads(threads)


def fit_threads() -> None:
    """Fit torch's threads to the CPUs that this process may use; called before a model is loaded.

    torch sees the affinity of a process, but not a container's quota of CPU time. A number that somebody has
    asked for stays, with a warning.
    """
    import torch

    threads, cpus = torch.get_num_threads(), available_cpus()
    if threads <= cpus:
        return
    from_outside = any(name in os.environ for name in VARIABLES)
    if from_outside or threads == _asked or threads > affinity():
        warn_of_threads(threads, cpus)
    else:
        torch.set_num_threads(cpus)


def warn_of_threads(threads: int, cpus: int) -> None:
    """Say that threads outnumber the CPUs."""
    warnings.warn(
        f"{threads} CPU threads are asked for, but this process may use {cpus} CPU{'s' * (cpus > 1)}; "
        f"they wait for each other, so {cpus} would be faster",
        RuntimeWarning,
        stacklevel=3,
    )
