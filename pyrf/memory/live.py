"""Bytes of tensors that are alive, counted while code runs on the meta device: shapes without values.

What runs is the code that streams, so a bill has no formulae of its own to keep up with it. Not seen is what
kernels take inside (workspaces of cuDNN and cuBLAS), and what an allocator rounds up.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside, every tensor that is made counts from then until it is freed; what was there before does not.

    Attributes:
        now: bytes that are alive.
        peak: the most that were at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for storage in storages((args, kwargs)):
            self._know(storage, 0)
        result = func(*args, **kwargs)
        for storage in storages(result):
            self._know(storage, storage.nbytes())
        return result

    def _know(self, storage: torch.UntypedStorage, size: int) -> None:
        """Add a storage of as many bytes, once for all the views of it."""
        key = storage._cdata
        if key in self._known:
            return

        def freed(_: object) -> None:
            self.now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def storages(values: Any) -> Iterator[torch.UntypedStorage]:
    """Of all tensors on the meta device in lists, tuples and mappings."""
    for value in tree_leaves(values):
        if isinstance(value, Tensor) and value.is_meta:
            yield value.untyped_storage()


def measured(call: Callable[[], object]) -> tuple[int, int]:
    """Bytes that a call keeps from time to time, and the most that it needs besides, on the meta device.

    It is called twice: what a first call begins, a second one goes on with.
    """
    with LiveBytes() as live:
        call()
        held, live.peak = live.now, live.now
        call()
    return held, live.peak - held
