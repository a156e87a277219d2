"""Computing without gradients and in the dtypes that tensors have, whatever the host program has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_DEVICES = ("cpu", "cuda")


class _Float32:
    """Products of float32 in float32, for as long as anyone is inside; the setting is of the whole process.

    With another one, processors with AMX and GPUs compute them in bfloat16 or TF32.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._was = Lock(), 0, "highest"

    @contextmanager
    def kept(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._was = torch.get_float32_matmul_precision()
                self._set("highest")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._set(self._was)

    @staticmethod
    def _set(precision: str) -> None:
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)


_float32 = _Float32()


@contextmanager
def unmixed() -> Iterator[None]:
    """Inside, neither a host program's autocast nor its precision of products changes a dtype."""
    with _float32.kept(), _no_autocast():
        yield


@contextmanager
def _no_autocast() -> Iterator[None]:
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
    """Inside, nothing is recorded for gradients, and dtypes are as in `unmixed`."""
    with torch.inference_mode(), unmixed():
        yield
