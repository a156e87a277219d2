"""The native module: its CUDA kernels, what they serve and how one is launched, and its loops for a CPU.

The ops take their plain torch path wherever there is a reason not to: on a CUDA device a float32 cache, and
heads of a size that no published model has; on a CPU every dtype but float32.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

DTYPES = {torch.bfloat16: 0, torch.float16: 1}
"""What the kernels compute in, with its number in `csrc/pyrf.h`."""
HEAD_DIMS = (64, 128)
MAX_CHANNELS = 5120
"""Of all heads together, what one block of norm_rope_append takes, and a row of add_norm."""
CAPABILITY = (8, 0)
"""The oldest compute capability that the kernels are built for."""


def _load() -> Any:
    try:
        return import_module("pyrf._native")
    except ImportError:
        return None


_module = _load()
kernels: Any = _module if _module and _module.build_info()["cuda"] else None
"""The native module where it holds CUDA kernels, else None."""
cpu: Any = getattr(_module, "cpu", None)
"""The native module's float32 loops for a CPU, with the arguments of `csrc/cpu/ops.h`; None without it."""


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _device_refusal(dtype: torch.dtype, device: torch.device) -> str | None:
    if kernels is None:
        return "pyrf is built without CUDA kernels"
    if dtype not in DTYPES:
        return f"pyrf's kernels compute in bfloat16 and float16, got {dtype}"
    if _capability(device) < CAPABILITY:
        oldest, given = ("{}.{}".format(*pair) for pair in (CAPABILITY, _capability(device)))
        return f"pyrf's kernels need compute capability {oldest} or newer, got {given}"
    return None


def refusal(heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the kernels do not serve a cache of these heads on a CUDA device; None when they do."""
    if reason := _device_refusal(dtype, device):
        return reason
    if head_dim not in HEAD_DIMS:
        return f"pyrf's kernels take a head_dim of 64 or 128, got {head_dim}"
    if heads * head_dim > MAX_CHANNELS:
        return f"pyrf's kernels take up to {MAX_CHANNELS} channels, got {heads * head_dim}"
    return None


def cpu_attention_refusal(head_dim: int, dtype: torch.dtype) -> str | None:
    """Why the CPU's attention is not the native module's; None when it is."""
    if cpu is None:
        return "pyrf's native module is not built"
    if dtype != torch.float32:
        return f"pyrf's attention on a CPU computes in float32, got {dtype}"
    if not cpu.serves_ring_attention(head_dim):
        needs = "an x86 CPU with AVX-512, a build by GCC 12 or newer, and a head_dim of whole 32"
        return f"pyrf's attention on a CPU needs {needs}, got {head_dim}"
    return None


def serve(keys: Tensor) -> bool:
    """Whether the kernels serve a layer's cache, [B, heads, tokens, head_dim] on a CUDA device."""
    return refusal(keys.shape[1], keys.shape[3], keys.dtype, keys.device) is None


def serve_rows(rows: Tensor) -> bool:
    """Whether `add_norm`'s kernel serves rows [..., D] on a CUDA device."""
    dim = rows.shape[-1]
    fits = rows.numel() > 0 and dim % 8 == 0 and dim <= MAX_CHANNELS
    return fits and _device_refusal(rows.dtype, rows.device) is None


def launch(kernel: str, device: torch.device, *arguments: object) -> None:
    """Launch a kernel on the current stream of a device, which need not be the current device.

    Args:
        kernel: its name, that of the op.
        device: where all pointers point.
        arguments: those of `csrc/pyrf.h`, strides as tuples, without the stream.

    Raises:
        ValueError: when the kernel does not take an argument; nothing is launched then.
        RuntimeError: when CUDA refuses the launch.
    """
    with torch.cuda.device(device):
        getattr(kernels, kernel)(*arguments, torch.cuda.current_stream().cuda_stream)
