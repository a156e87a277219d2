"""The names of torch's dtypes, as files, recipes and command lines write them."""

from __future__ import annotations

import torch

_DTYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float16", "bfloat16", "int64", "int32", "int16", "uint8", "bool")
}


def dtype_of(name: str | torch.dtype) -> torch.dtype:
    """The dtype of a name, as "bfloat16"; a dtype is its own.

    Raises:
        ValueError: when pyrf knows none of this name.
    """
    dtype = name if isinstance(name, torch.dtype) else _DTYPES.get(name)
    if dtype is None:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {name!r}")
    return dtype


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype, as "bfloat16"."""
    return str(dtype).removeprefix("torch.")
