"""The names of torch's dtypes, as files, recipes and command lines write them."""

from __future__ import annotations

import platform

import torch

_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float32",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "int64",
        "int32",
        "int16",
        "uint8",
        "bool",
    )
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


def slow_on_cpu(dtype: torch.dtype) -> str | None:
    """Why a CPU computes slower in a dtype than in float32, by what this processor can do; None if not."""
    if dtype not in (torch.bfloat16, torch.float16):
        return None
    if platform.machine().lower() in ("x86_64", "amd64"):
        if dtype == torch.bfloat16:
            checks = {"AVX-512 BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
        else:
            checks = {"AMX FP16": "_is_amx_fp16_supported"}
        if any(getattr(torch.cpu, check, lambda: False)() for check in checks.values()):
            return None
        missing = " nor ".join(checks)
        return f"it has no {missing}, so torch converts every value to float32 and back"
    supported = getattr(
        torch.ops.mkldnn, f"_is_mkldnn_{'bf16' if dtype == torch.bfloat16 else 'fp16'}_supported"
    )
    return None if supported() else "it has no instructions for products in it"


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype, as "bfloat16"."""
    return str(dtype).removeprefix("torch.")
