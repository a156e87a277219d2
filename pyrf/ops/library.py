"""What the ops share: their library, the checks of their arguments, and slots of a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from string import ascii_lowercase
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor
from torch.library import Library, register_fake

from pyrf.ops.e4m3 import E4M3, to_e4m3

LIBRARY = Library("pyrf", "DEF")
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
CACHE_DTYPES = (*FLOATS, E4M3)

A = TypeVar("A")
R = TypeVar("R")
_KINDS: dict[object, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "SymInt",
    float: "float",
    bool: "bool",
}


def schema(name: str, args: Callable[..., A], mutates: Iterable[str], returns: str) -> str:
    """An op's schema, from the names and types of its arguments.

    Args:
        name: of the op.
        args: the NamedTuple of its arguments.
        mutates: names of the tensors that it writes.
        returns: the type of its result, as torch writes it.
    """
    letters = dict(zip(mutates, ascii_lowercase))
    words = []
    for argument, kind in get_type_hints(args).items():
        alias = f"({letters[argument]}!)" if argument in letters else ""
        words.append(f"{_KINDS[kind].replace('Tensor', f'Tensor{alias}')} {argument}")
    return f"{name}({', '.join(words)}) -> {returns}"


def checked(args: Callable[..., A], check: Callable[[A], None], path: Callable[[A], R]) -> Callable[..., R]:
    """A path as the dispatcher calls it: with an op's arguments one by one, which are checked first."""

    def call(*values: Any) -> R:
        given = args(*values)
        check(given)
        return path(given)

    return call


def define(
    name: str,
    args: Callable[..., A],
    *,
    check: Callable[[A], None],
    run: Callable[[A], R],
    cuda: Callable[[A], R],
    fake: Callable[[A], R],
    cpu: Callable[[A], R] | None = None,
    mutates: Iterable[str] = (),
    returns: str = "Tensor",
) -> Any:
    """Define an op of the library. Its arguments are checked once, whichever path they take.

    Args:
        name: of the op.
        args: the NamedTuple of its arguments, whose fields give the schema. Paths receive it whole.
        check: raises a ValueError unless the arguments fit.
        run: the plain torch path, which serves every device that has no path of its own.
        cuda: the path of CUDA devices.
        fake: returns an empty result, for tracing.
        cpu: the path of the CPU; None: `run`.
        mutates: names of the tensors that it writes.
        returns: the type of its result, as torch writes it.

    Returns:
        The op's overload, to call.
    """
    LIBRARY.define(schema(name, args, mutates, returns))
    paths = {"CompositeExplicitAutograd": run, "CUDA": cuda, "CPU": cpu or run}
    for key, path in paths.items():
        LIBRARY.impl(name, checked(args, check, path), key)
    register_fake(f"pyrf::{name}", checked(args, check, fake), lib=LIBRARY)
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
    if keys.ndim != 4 or keys.dtype not in CACHE_DTYPES:
        raise ValueError(
            "keys must be [B, heads, tokens, head_dim] of a float dtype or e4m3, "
            f"got {list(keys.shape)} {keys.dtype}"
        )
    expect("values", values, keys.shape, keys.dtype, keys.device)
    if keys.stride(3) != 1 or values.stride(3) != 1:
        raise ValueError(
            f"keys and values must be contiguous in head_dim, got strides {keys.stride()}, {values.stride()}"
        )
    batch, heads, tokens, head_dim = keys.shape
    return batch, heads, tokens, head_dim


def expect_computed(name: str, dtype: torch.dtype, keys: Tensor) -> torch.dtype:
    """Check the dtype of what is computed with a cache: the cache's own, or any float beside e4m3."""
    if keys.dtype != E4M3:
        return keys.dtype
    if dtype not in FLOATS:
        raise ValueError(f"{name} must be of a float dtype beside a cache of e4m3, got {dtype}")
    return dtype


def expect_slot(slot: Tensor, tokens: int, capacity: int, device: torch.device) -> None:
    """Check that a slot index is a scalar on the device and that slots of ``tokens`` fill the cache."""
    expect("slot", slot, (), torch.int64, device)
    if tokens < 1 or capacity % tokens:
        raise ValueError(f"the cache must hold whole slots of {tokens} tokens, got room for {capacity}")


def expect_contiguous(name: str, tensor: Tensor) -> None:
    """Raise a ValueError unless a tensor is contiguous."""
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got {list(tensor.shape)}, strides {tensor.stride()}")


def _on_host(slot: Tensor) -> bool:
    return slot.device.type == "cpu"


def locate(slot: Tensor, tokens: int, capacity: int, first: int = 0) -> int | Tensor:
    """Where a slot of a cache of ``capacity`` tokens lies, for `read_slot` and `write_slot`.

    Returns:
        On a CPU its first token. Elsewhere the index of each of its tokens, formed on the device:
        reading the slot on the host would wait for the GPU.

    Raises:
        ValueError: when the host can see that the slot is not one of ``first``, ``first`` + 1, ...
    """
    if not _on_host(slot):
        return slot * tokens + torch.arange(tokens, dtype=torch.int64, device=slot.device)
    index, slots = int(slot), capacity // tokens
    if not first <= index < slots:
        raise ValueError(f"slot must lie in {first}..{slots - 1}, got {index}")
    return index * tokens


def read_slot(buffer: Tensor, place: int | Tensor, tokens: int) -> Tensor:
    """A slot of a layer's keys or values, [B, heads, tokens, head_dim]; on a CPU a view."""
    if isinstance(place, int):
        return buffer.narrow(2, place, tokens)
    return buffer.index_select(2, place)


def write_slot(buffer: Tensor, place: int | Tensor, x: Tensor) -> None:
    """Overwrite a slot of a layer's keys or values with x [B, heads, tokens, head_dim]."""
    x = rounded(x, buffer.dtype)
    if isinstance(place, int):
        buffer.narrow(2, place, x.shape[2]).copy_(x)
    elif buffer.dtype == E4M3:  # torch indexes bytes, not e4m3
        buffer.view(torch.uint8).index_copy_(2, place, x.view(torch.uint8))
    else:
        buffer.index_copy_(2, place, x)


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in a cache's dtype."""
    if x.dtype == dtype:
        return x
    return to_e4m3(x) if dtype == E4M3 else x.to(dtype)
