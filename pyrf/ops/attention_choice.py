"""Which attention runs: pyrf's kernel or torch's scaled_dot_product_attention.

Both read the same cache, so either may serve any call. By default the first call of a shape times
both, and the faster one is kept; near a tie two processes may choose differently, and their results
then differ in the last bits. `set_attention`, or the environment variable PYRF_ATTENTION, forces one.
On a CPU nothing is timed: pyrf's loops run where they can, unless "sdpa" is set.

Over a cache of e4m3 the choice is between SDPA on widened numbers and products in e4m3, by cuDNN or by pyrf's
kernel. These are taken only when their result lies near SDPA's, and they are faster; a warning says of each
that is refused why.
"""

from __future__ import annotations

import os
import statistics
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import NamedTuple, Self

import torch
from torch import Tensor

VARIABLE = "PYRF_ATTENTION"
MODES = ("auto", "pyrf", "sdpa")
WARM_UPS, REPEATS = 3, 7


class Workload(NamedTuple):
    """What the choice depends on."""

    batch: int
    heads: int
    queries: int
    length: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, q: Tensor, length: int) -> Self:
        """The workload of q [batch, heads, queries, head_dim] and ``length`` valid keys."""
        batch, heads, queries, head_dim = q.shape
        return cls(batch, heads, queries, length, head_dim, q.dtype, q.device)


class AttentionRefusedError(RuntimeError):
    """An attention does not serve here, and why."""


class Choice(NamedTuple):
    """The faster attention, and the median time of each in seconds."""

    backend: str
    seconds: dict[str, float]


def time_on_device(run: Callable[[], object], device: torch.device) -> float:
    """Median time in seconds of a call on a device's current stream, by events, after warm-ups."""
    with torch.cuda.device(device):
        for _ in range(WARM_UPS):
            run()
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPEATS)]
        for start, end in marks:
            start.record()
            run()
            end.record()
        marks[-1][1].synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in marks) / 1e3


class AttentionChoice:
    """The choices made in a process, one a workload.

    Args:
        timer: takes a call and a device, and returns its seconds there.
        capturing: whether the current stream is being captured into a graph, where nothing can be timed.
    """

    def __init__(
        self,
        timer: Callable[[Callable[[], object], torch.device], float] = time_on_device,
        capturing: Callable[[], bool] = torch.cuda.is_current_stream_capturing,
    ) -> None:
        self.made: dict[Workload, Choice] = {}
        self._timer, self._capturing = timer, capturing
        self._mode: str | None = None
        self._lock = Lock()  # streams in other threads would disturb a timing

    @property
    def mode(self) -> str:
        """ "auto", "pyrf" or "sdpa"; until it is set, what the environment says.

        Raises:
            ValueError: when the environment says something else.
        """
        if self._mode is None:
            self.mode = os.environ.get(VARIABLE) or "auto"
        assert self._mode is not None
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"attention ({VARIABLE}) must be one of {', '.join(MODES)}, got {mode!r}")
        self._mode = mode

    def choose(
        self,
        workload: Workload,
        backends: Mapping[str, Callable[..., Tensor]],
        *arguments: object,
        within: float | None = None,
    ) -> str:
        """The attention for a workload.

        During graph capture it is one chosen before or else SDPA, which a later call may revise: run
        a shape once before capturing it.

        Args:
            workload: what is asked for.
            backends: what computes it, by name; "sdpa" is among them.
            arguments: what they take.
            within: relative L2 error that a result may have beside SDPA's. A backend whose result differs
                more, or which raises `AttentionRefusedError`, is refused with a warning. None: all may.
        """
        if self.mode != "auto":
            return self.mode
        if workload not in self.made:
            if self._capturing():
                return "sdpa"
            with self._lock:
                if workload not in self.made:
                    runs: dict[str, Callable[[], Tensor]] = {
                        name: partial(backend, *arguments) for name, backend in backends.items()
                    }
                    if within is not None:
                        runs = _near(runs, within)
                    seconds = {name: self._timer(run, workload.device) for name, run in runs.items()}
                    self.made[workload] = Choice(min(seconds, key=seconds.__getitem__), seconds)
        return self.made[workload].backend


def _near(runs: Mapping[str, Callable[[], Tensor]], within: float) -> dict[str, Callable[[], Tensor]]:
    """Those that give what SDPA gives."""
    expected = runs["sdpa"]().float()
    near = {}
    for name, run in runs.items():
        try:
            error = float((run().float() - expected).norm() / expected.norm())
        except AttentionRefusedError as refused:
            reason = str(refused)
        else:
            if error <= within:
                near[name] = run
                continue
            reason = f"its result is {error:.2g} off, and {within:g} is allowed"
        warnings.warn(f"attention by {name} is not used: {reason}", RuntimeWarning, stacklevel=2)
    return near


CHOICE = AttentionChoice()


def set_attention(mode: str) -> None:
    """Force the attention of this process, or return to choosing.

    Args:
        mode: "pyrf" or "sdpa"; "auto" times both once a shape on a CUDA device.

    Raises:
        ValueError: when it is none of these.
    """
    CHOICE.mode = mode
