"""The ops of `pyrf.ops`, with the same signatures, run by the PTX interpreter."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyrf.dtypes import name_of
from pyrf.kernels.instances import RING_QUERIES, SIZES, Instance
from pyrf.ops.e4m3 import E4M3
from tests.kernels.ptx import GlobalMemory, Kernel, launch

EMA_THREADS = 256
"""Vectors, and queries, that a block works on; see the launchers in csrc."""
ADD_NORM_ROWS = {128: 32, 256: 16, 512: 8, 1536: 4, 5120: 4}
"""Rows that a block works on, by the widest row of the instance."""

_POINTER, _INT, _FLOAT = ctypes.c_uint64, ctypes.c_int32, ctypes.c_float


class Strides(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "head", "token")]


class AddNormParams(ctypes.Structure):
    """As in csrc/params.h."""

    _fields_ = [
        *((name, _POINTER) for name in ("y", "residual", "gate", "bias", "weight", "shift", "sum", "normed")),
        ("scales", _POINTER),
        ("rows", ctypes.c_int64),
        ("vectors", _INT),
        ("inverse_dim", _FLOAT),
        ("eps", _FLOAT),
        ("rms", _INT),
        ("silu", _INT),
    ]


class QuantiseRowsParams(ctypes.Structure):
    """As in csrc/params.h."""

    _fields_ = [
        *((name, _POINTER) for name in ("x", "rows", "scales")),
        ("vectors", _INT),
        ("gelu", _INT),
    ]


class EmaSinkHalf(ctypes.Structure):
    _fields_ = [
        ("cache", _POINTER),
        ("master", _POINTER),
        ("cache_strides", Strides),
        ("master_strides", Strides),
    ]


class EmaSinkParams(ctypes.Structure):
    """As in csrc/params.h."""

    _fields_ = [
        ("halves", EmaSinkHalf * 2),
        ("slot", _POINTER),
        ("turn", _POINTER),
        ("heads", _INT),
        ("tokens", _INT),
        ("slots", _INT),
        ("time_pairs", _INT),
        ("weight", _FLOAT),
    ]


class NormRopeParams(ctypes.Structure):
    """As in csrc/params.h."""

    _fields_ = [
        *((name, _POINTER) for name in ("q", "k", "v", "norm_q", "norm_k")),
        *((name, _POINTER) for name in ("rope", "slot", "keys", "values", "q_out")),
        *((f"{name}_strides", Strides) for name in ("q", "k", "v", "keys", "values")),
        ("heads", _INT),
        ("tokens", _INT),
        ("slots", _INT),
        ("eps", _FLOAT),
    ]


class RingAttentionParams(ctypes.Structure):
    """As in csrc/params.h."""

    _fields_ = [
        *((name, _POINTER) for name in ("q", "keys", "values", "out")),
        *((f"{name}_strides", Strides) for name in ("q", "keys", "values")),
        ("heads", _INT),
        ("queries", _INT),
        ("length", _INT),
        ("scale_log2", _FLOAT),
    ]


class _Device:
    """Storages of tensors in the interpreter's memory; `fetch` brings back what a kernel wrote."""

    def __init__(self) -> None:
        self.memory = GlobalMemory()
        self._storages: dict[int, tuple[Tensor, int]] = {}

    def pointer(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._storages:
            raw = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._storages[storage.data_ptr()] = raw, self.memory.place(raw.numpy())
        return self._storages[storage.data_ptr()][1] + int(tensor.storage_offset()) * tensor.element_size()

    def fetch(self) -> None:
        for raw, address in self._storages.values():
            raw.copy_(torch.from_numpy(self.memory.fetch(address)))


def _strides(x: Tensor) -> Strides:
    """Of a cache or master, [B, heads, tokens, head_dim]."""
    return Strides(*x.stride()[:3])


def _rows(x: Tensor, head_dim: int) -> Strides:
    """Of a projection, [B, tokens, D]."""
    return Strides(x.stride(0), head_dim, x.stride(1))


class PtxOps:
    """The ops.

    Args:
        kernels: entries of the PTX, by name.
    """

    def __init__(self, kernels: Mapping[str, Kernel]) -> None:
        self.kernels = {Instance.of(name): kernel for name, kernel in kernels.items()}

    def _launch(
        self,
        op: str,
        like: Tensor,
        size: int,
        heads: int,
        grid: tuple[int, int, int],
        parameters: ctypes.Structure,
        device: _Device,
        written: Tensor | None = None,
    ) -> None:
        stored = name_of(written.dtype) if written is not None and written.dtype != like.dtype else None
        instance = Instance(op, name_of(like.dtype), size, stored)
        threads, shared = instance.block(heads)
        launch(self.kernels[instance], grid, (threads, 1, 1), bytes(parameters), device.memory, shared)
        device.fetch()

    def add_norm(
        self,
        y: Tensor,
        residual: Tensor | None,
        gate: Tensor | None,
        bias: Tensor | None,
        weight: Tensor | None,
        shift: Tensor | None,
        eps: float,
        rms: bool,
        silu: bool,
        *,
        quantises: bool = False,
    ) -> list[Tensor]:
        rows, dim = y.shape
        outputs = [None if x is None else torch.full_like(y, math.nan) for x in (residual, weight, None)]
        if quantises:
            outputs[1:] = y.to(E4M3), torch.full((rows, 1), math.nan)
        device = _Device()
        named = {"y": y, "residual": residual, "gate": gate, "bias": bias, "weight": weight, "shift": shift}
        named |= {"sum": outputs[0], "normed": outputs[1], "scales": outputs[2]}
        parameters = AddNormParams(
            **{name: device.pointer(tensor) for name, tensor in named.items()},
            rows=rows,
            vectors=dim // 8,
            inverse_dim=1 / dim,
            eps=eps,
            rms=rms,
            silu=silu,
        )
        size = min(width for width in ADD_NORM_ROWS if width >= dim)
        grid = (-(-rows // ADD_NORM_ROWS[size]), 1, 1)
        self._launch("add_norm", y, size, 1, grid, parameters, device, outputs[1])
        return [x for x in outputs if x is not None]

    def quantise_rows(self, x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
        rows, dim = x.shape
        outputs = x.to(E4M3), torch.full((rows, 1), math.nan)
        device = _Device()
        named = dict(zip(("x", "rows", "scales"), (x, *outputs)))
        parameters = QuantiseRowsParams(
            **{name: device.pointer(tensor) for name, tensor in named.items()}, vectors=dim // 8, gelu=gelu
        )
        size = min(width for width in SIZES["quantise_rows"] if width >= dim)
        self._launch("quantise_rows", x, size, 1, (rows, 1, 1), parameters, device)
        return outputs

    def ema_sink_update(
        self,
        keys: Tensor,
        values: Tensor,
        key_master: Tensor,
        value_master: Tensor,
        slot: Tensor,
        turn: Tensor,
        tokens: int,
        alpha: float,
    ) -> None:
        batch, heads, capacity, head_dim = keys.shape
        device = _Device()
        halves = [
            EmaSinkHalf(device.pointer(cache), device.pointer(master), _strides(cache), _strides(master))
            for cache, master in ((keys, key_master), (values, value_master))
        ]
        parameters = EmaSinkParams(
            halves=(EmaSinkHalf * 2)(*halves),
            slot=device.pointer(slot),
            turn=device.pointer(turn),
            heads=heads,
            tokens=tokens,
            slots=capacity // tokens,
            time_pairs=len(turn),
            weight=1.0 - alpha,
        )
        grid = (-(-tokens * head_dim // 8 // EMA_THREADS), batch * heads, 2)
        self._launch("ema_sink_update", keys, head_dim, heads, grid, parameters, device)

    def norm_rope_append(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        norm_q: Tensor,
        norm_k: Tensor,
        eps: float,
        rope: Tensor,
        slot: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> Tensor:
        batch, heads, capacity, head_dim = keys.shape
        tokens = q.shape[1]
        out = torch.full((batch, tokens, heads, head_dim), math.nan, dtype=q.dtype)
        device = _Device()
        named = {"q": q, "k": k, "v": v, "norm_q": norm_q, "norm_k": norm_k, "rope": rope}
        named |= {"slot": slot, "keys": keys, "values": values, "q_out": out}
        parameters = NormRopeParams(
            **{name: device.pointer(tensor) for name, tensor in named.items()},
            **{f"{name}_strides": _rows(named[name], head_dim) for name in "qkv"},
            keys_strides=_strides(keys),
            values_strides=_strides(values),
            heads=heads,
            tokens=tokens,
            slots=capacity // tokens,
            eps=eps,
        )
        self._launch("norm_rope_append", q, head_dim, heads, (tokens, batch, 1), parameters, device, keys)
        return out.transpose(1, 2)

    def ring_attention_e4m3(self, q: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
        return self.ring_attention(q, keys, values, length, "ring_attention_e4m3")

    def ring_attention(
        self, q: Tensor, keys: Tensor, values: Tensor, length: int, op: str = "ring_attention"
    ) -> Tensor:
        batch, heads, queries, head_dim = q.shape
        out = torch.full((batch, queries, heads * head_dim), math.nan, dtype=q.dtype)
        device = _Device()
        named = {"q": q, "keys": keys, "values": values}
        parameters = RingAttentionParams(
            **{name: device.pointer(tensor) for name, tensor in named.items()},
            out=device.pointer(out),
            **{f"{name}_strides": _strides(tensor) for name, tensor in named.items()},
            heads=heads,
            queries=queries,
            length=length,
            scale_log2=math.log2(math.e) / math.sqrt(head_dim),
        )
        grid = (-(-queries // RING_QUERIES), heads, batch)
        self._launch(op, q, head_dim, heads, grid, parameters, device)
        return out
