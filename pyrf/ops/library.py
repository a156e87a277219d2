"""What the ops share: their library, the checks of their arguments, and slots of a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_fake

LIBRARY = Library("pyrf", "DEF")
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Define an op of the library with its plain-torch path, which serves every device, and its fake.

    Returns:
        The op's overload, to call.
    """
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    register_fake(f"pyrf::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.pyrf, name).default


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which norms, rotations and averages are computed: float32 at least."""
    return dtype if dtype == torch.float64 else torch.float32


def expect(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Raise a ValueError unless a tensor has this shape, dtype and device."""
    if tensor.shape != shape or tensor.dtype != dtype or tensor.device != device:
        raise ValueError(
            f"{name} must be {list(shape)} {dtype} on {device}, "
            f"got {list(tensor.shape)} {tensor.dtype} on {tensor.device}"
        )


def expect_cache(keys: Tensor, values: Tensor) -> tuple[int, int, int, int]:
    """Check the keys and values of a layer; returns [batch, heads, tokens, head_dim]."""
    if keys.ndim != 4 or keys.dtype not in FLOATS:
        raise ValueError(
            f"keys must be [B, heads, tokens, head_dim] of a float dtype, got {list(keys.shape)} {keys.dtype}"
        )
    expect("values", values, keys.shape, keys.dtype, keys.device)
    if keys.stride(3) != 1 or values.stride(3) != 1:
        raise ValueError(
            f"keys and values must be contiguous in head_dim, got strides {keys.stride()}, {values.stride()}"
        )
    batch, heads, tokens, head_dim = keys.shape
    return batch, heads, tokens, head_dim


def expect_slot(slot: Tensor, tokens: int, capacity: int, device: torch.device) -> None:
    """Check that a slot index is a scalar on the device and that slots of ``tokens`` fill the cache."""
    expect("slot", slot, (), torch.int64, device)
    if tokens < 1 or capacity % tokens:
        raise ValueError(f"the cache must hold whole slots of {tokens} tokens, got room for {capacity}")


def _offsets(slot: Tensor, tokens: int) -> Tensor:
    """Token indices of a slot, formed on the device: reading the slot on the host would wait for the GPU."""
    return slot * tokens + torch.arange(tokens, device=slot.device)


def _on_host(slot: Tensor) -> bool:
    return slot.device.type == "cpu"


def read_slot(buffer: Tensor, slot: Tensor, tokens: int) -> Tensor:
    """A slot of a layer's keys or values, [B, heads, tokens, head_dim]; on a CPU a view."""
    if _on_host(slot):
        return buffer.narrow(2, int(slot) * tokens, tokens)
    return buffer.index_select(2, _offsets(slot, tokens))


def write_slot(buffer: Tensor, slot: Tensor, x: Tensor) -> None:
    """Overwrite a slot of a layer's keys or values with x [B, heads, tokens, head_dim]."""
    tokens = x.shape[2]
    if _on_host(slot):
        buffer.narrow(2, int(slot) * tokens, tokens).copy_(x)
    else:
        buffer.index_copy_(2, _offsets(slot, tokens), x.to(buffer.dtype))
