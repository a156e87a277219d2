"""What a program around pyrf may have set, each as a context."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def setting(change: Callable[[Any], object], value: Any, back: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(back)


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    return setting(torch.set_default_dtype, dtype, torch.float32)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default device meta": lambda: setting(torch.set_default_device, "meta", None),
    "inside torch.device": lambda: torch.device("meta"),
    "gradients on": torch.enable_grad,
    "gradients off": torch.no_grad,
    "inference mode": torch.inference_mode,
    "inference mode off": lambda: torch.inference_mode(False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "anomaly detection": torch.autograd.detect_anomaly,
    "deterministic algorithms": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "matmul precision medium": lambda: setting(torch.set_float32_matmul_precision, "medium", "highest"),
    "denormals flushed": lambda: setting(torch.set_flush_denormal, True, False),
    "another seed": lambda: setting(torch.manual_seed, 7, 0),
    "numpy raises": lambda: np.errstate(all="raise"),
}
