"""The native module: its CUDA kernels, what they serve and how one is launched, and its loops for a CPU.

The ops take their plain torch path wherever there is a reason not to: on a CUDA device a float32 cache, and
heads of a size that no published model has; on a CPU every dtype but float32.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pyrf.ops.e4m3 import E4M3

DTYPE_NUMBERS = {
    torch.bfloat16: 0,
    torch.float16: 1,
    torch.float32: 2,
    torch.int16: 3,
    torch.int64: 4,
    E4M3: 5,
}
"""The dtypes of `csrc/view.h` with their numbers."""
KERNEL_DTYPES = (torch.bfloat16, torch.float16)
"""What the kernels compute in."""
HEAD_DIMS = (64, 128)
MAX_CHANNELS = 5120
"""Of all heads together, what one block of norm_rope_append takes, and a row of add_norm."""
MAX_QUANTISED = 14336
"""Of a row of quantise_rows: the widest hidden layer of a feed-forward network in Wan's models."""
HEAD_DIM_UNIT = 32
"""Channels of a head that the CPU's attention takes at a time."""
CAPABILITY = (8, 0)
"""The oldest compute capability that the kernels are built for."""
E4M3_CAPABILITY = (8, 9)
"""The same of attention over a cache of e4m3; GPUs before it have no such products."""


VARIABLE = "PYRF_NATIVE"
MODES = ("auto", "on", "off")


class NativeMissingError(ValueError):
    """PYRF_NATIVE=on asks for the native module, and there is none that loads."""


def _load() -> tuple[Any, str]:
    """The native module and "", or None and why it is not used.

    Raises:
        ValueError: when PYRF_NATIVE says something unknown, or asks for a module that is not there.
    """
    mode = os.environ.get(VARIABLE, "auto").lower()
    if mode not in MODES:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "off":
        return None, f"switched off by {VARIABLE}=off"
    try:
        return import_module("pyrf._native"), ""
    except ModuleNotFoundError:
        reason = "not built; install pyrf again with a C++ compiler"
    except ImportError as error:
        reason = f"built, but it does not load here ({error}); install pyrf again"
    if mode == "on":
        raise NativeMissingError(f"{VARIABLE}=on, but pyrf's native module is {reason}")
    warnings.warn(
        f"pyrf's native module is {reason}. torch does its work, somewhat slower on a CPU; "
        f"{VARIABLE}=off says that this is meant",
        RuntimeWarning,
        stacklevel=2,
    )
    return None, reason


_module, missing = _load()
"""`missing` says why the native module is not used; "" when it is."""
kernels: Any = _module if _module and _module.build_info()["cuda"] else None
"""The native module where it holds CUDA kernels, else None."""
cpu: Any = getattr(_module, "cpu", None)
"""The native module's float32 loops for a CPU, with the arguments of `csrc/cpu/ops.h`; None without it."""


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _device_refusal(
    dtype: torch.dtype, device: torch.device, capability: tuple[int, int] = CAPABILITY
) -> str | None:
    if kernels is None:
        return f"pyrf's native module is {missing}" if missing else "pyrf is built without CUDA kernels"
    if dtype not in KERNEL_DTYPES:
        return f"pyrf's kernels compute in bfloat16 and float16, got {dtype}"
    if _capability(device) < capability:
        oldest, given = ("{}.{}".format(*pair) for pair in (capability, _capability(device)))
        return f"pyrf's kernels need compute capability {oldest} or newer, got {given}"
    return None


def refusal(
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    capability: tuple[int, int] = CAPABILITY,
) -> str | None:
    """Why the kernels do not serve a cache of these heads on a CUDA device; None when they do."""
    if reason := _device_refusal(dtype, device, capability):
        return reason
    if head_dim not in HEAD_DIMS:
        return f"pyrf's kernels take a head_dim of 64 or 128, got {head_dim}"
    if heads * head_dim > MAX_CHANNELS:
        return f"pyrf's kernels take up to {MAX_CHANNELS} channels, got {heads * head_dim}"
    return None


def cpu_attention_refusal(head_dim: int, dtype: torch.dtype) -> str | None:
    """Why the CPU's attention is not the native module's; None when it is."""
    if cpu is None:
        return f"pyrf's native module is {missing or 'not built'}"
    if dtype != torch.float32:
        return f"pyrf's attention on a CPU computes in float32, got {dtype}"
    if not cpu.serves_ring_attention(HEAD_DIM_UNIT):
        return "pyrf's attention on a CPU needs an x86 CPU with AVX-512, and a build by GCC 12 or newer"
    if not cpu.serves_ring_attention(head_dim):
        return f"pyrf's attention on a CPU takes a head_dim that is a multiple of 32, got {head_dim}"
    return None


def described() -> str:
    """The native module in a line: how it was built, or why it is not used."""
    if _module is None:
        return f"{missing}; torch computes in its place"
    return ", ".join(f"{key} {value}" for key, value in _module.build_info().items())


def serve(keys: Tensor, dtype: torch.dtype) -> bool:
    """Whether the kernels serve a layer's cache, [B, heads, tokens, head_dim] on a CUDA device.

    Args:
        keys: the cache, in ``dtype`` or e4m3.
        dtype: of what is computed with it.
    """
    return refusal(keys.shape[1], keys.shape[3], dtype, keys.device) is None


def serve_rows(rows: Tensor, most: int = MAX_CHANNELS) -> bool:
    """Whether a kernel of rows [..., D] serves these on a CUDA device.

    Args:
        most: channels that it takes; by default those of `add_norm`.
    """
    dim = rows.shape[-1]
    fits = rows.numel() > 0 and dim % 8 == 0 and dim <= most
    return fits and _device_refusal(rows.dtype, rows.device) is None


def as_views(arguments: Iterable[object]) -> Iterator[object]:
    """Arguments as the native module takes them: a tensor as its address, dtype, shape and strides."""
    for x in arguments:
        yield (x.data_ptr(), DTYPE_NUMBERS[x.dtype], x.shape, x.stride()) if isinstance(x, Tensor) else x


def launch(kernel: str, device: torch.device, *arguments: object) -> None:
    """Launch a kernel on the current stream of a device, which need not be the current device.

    Args:
        kernel: its name, that of the op.
        device: of all tensors.
        arguments: those of `csrc/pyrf.h`, without the stream: the op's, then its outputs.

    Raises:
        ValueError: when the kernel does not take an argument; nothing is launched then.
        RuntimeError: when CUDA refuses the launch.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream().cuda_stream
        getattr(kernels, kernel)(*as_views(arguments), stream)


def run_on_cpu(op: str, *arguments: object) -> None:
    """Run a loop of the native module on torch's threads; arguments as those of `launch`."""
    getattr(cpu, op)(*as_views(arguments), torch.get_num_threads())
