"""Which backend computes a pipeline's streams, and how a bundle is loaded for it."""

from __future__ import annotations

from pathlib import Path

import torch

from pyrf.backends.base import Backend
from pyrf.backends.torch.parallel.bands import MAX_RANKS
from pyrf.bundle.bundle import Bundle
from pyrf.checks import check_whole
from pyrf.dtypes import dtype_of, name_of
from pyrf.export.manifest import FP8_ATTENTION
from pyrf.extras import is_installed
from pyrf.models.codecs.codec import Codec

BACKENDS = ("torch", "onnxruntime", "tensorrt")
AUTO = "auto"
"""The backend that `fastest_backend` names."""
SMALL_NETWORK = 10_000_000
"""Weights of all blocks' products, below which ONNX Runtime is faster on every CPU that was measured."""
DTYPES = ("float32", "bfloat16", "float16")
ADAPTER_BASES = ("device", "cpu")
PRECISIONS = (FP8_ATTENTION, "fp8")
"""What may be computed in fewer bits than the dtype's: self-attention and its cache in e4m3; with "fp8" the
weights and products of the blocks' linears, too, which torch alone has."""


def check_backend(name: str, exported: str | Path | None) -> None:
    """Refuse a backend that does not exist, and an exported folder where none is read.

    Raises:
        ValueError: which one, and what there is.
    """
    if name not in (*BACKENDS, AUTO):
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)}, got {name!r}; or {AUTO}, the fastest of them here"
        )
    if name in ("torch", AUTO) and exported is not None:
        raise ValueError(
            f"the {name} backend reads no exported folder, got {str(exported)!r}; "
            "choose onnxruntime or tensorrt"
        )
    if name == "tensorrt":
        from pyrf.export.tensorrt.library import load_tensorrt

        load_tensorrt()


def installed_backends(dtype: torch.dtype, device: torch.device) -> tuple[str, ...]:
    """The backends that are installed and compute in a dtype on a device, torch the first."""
    found = ["torch"] if dtype != torch.float16 else []
    if device.type == "cpu" and dtype == torch.float32 and is_installed("onnxruntime"):
        found.append("onnxruntime")
    if device.type == "cuda" and dtype != torch.float32 and is_installed("tensorrt"):
        found.append("tensorrt")
    return tuple(found)


def fastest_backend(bundle: Bundle, dtype: torch.dtype, device: torch.device) -> str:
    """The backend that `auto` takes: by rules from what was measured (docs/performance.md), without timing.

    On a CPU in float32 ONNX Runtime is faster where torch has no attention of ours (without AVX-512), and for
    small networks. Elsewhere torch is: TensorRT was never timed, and strengths of adapters change in torch
    alone.
    """
    if bundle.adapters or "onnxruntime" not in installed_backends(dtype, device):
        return "torch"
    model = bundle.model_config
    weights = model.num_layers * 2 * model.dim * (4 * model.dim + model.ffn_dim)
    narrow = torch.backends.cpu.get_cpu_capability() != "AVX512"
    return "onnxruntime" if narrow or weights < SMALL_NETWORK else "torch"


def check_adapter_base(place: str) -> None:
    """Refuse a place for the base's weights that does not exist.

    Raises:
        ValueError: which one, and what there is.
    """
    if place not in ADAPTER_BASES:
        raise ValueError(f"adapter_base must be one of {', '.join(ADAPTER_BASES)}, got {place!r}")


def check_dtype(dtype: str | torch.dtype, backend: str) -> torch.dtype:
    """The dtype of a name, if the backend computes in it.

    Raises:
        ValueError: which one, and what there is.
    """
    name = name_of(dtype) if isinstance(dtype, torch.dtype) else dtype
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    if name == "float16" and backend != "tensorrt":
        raise ValueError("dtype float16 is for the tensorrt backend alone; give float32 or bfloat16")
    return dtype_of(name)


def check_split(ranks: int | str, decoder_rank: int | None, backend: str) -> None:
    """Refuse a number of ranks for each stream that is none, or where a backend knows of none.

    Raises:
        ValueError: which one, and why.
    """
    if ranks != "torchrun":
        check_whole("gpus_per_stream", ranks, most=MAX_RANKS)
    if ranks != 1 and backend != "torch":
        raise ValueError(f"a stream on several GPUs needs the backend torch, got {backend!r}")
    if ranks == 1 and decoder_rank is not None:
        raise ValueError("decoder_rank names one of several ranks; give gpus_per_stream, too")


def check_precision(precision: str | None, backend: str) -> None:
    """Refuse a precision that does not exist, or that a backend does not compute in.

    Raises:
        ValueError: which one, and what there is.
    """
    if precision is None:
        return
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, or left out, got {precision!r}")
    if backend != "torch" and precision != FP8_ATTENTION:
        raise ValueError(
            f"precision {precision} is for the torch backend, got {backend}; "
            f"take precision {FP8_ATTENTION}, or the backend torch"
        )


def load_backend(
    name: str,
    bundle: Bundle,
    codec: Codec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    exported: str | Path | None,
    adapter_base: str = "device",
    precision: str | None = None,
    arenas: bool = True,
) -> Backend:
    """Load a bundle's student for a backend.

    Args:
        name: one of `BACKENDS`.
        codec: the bundle's, loaded.
        dtype, device: of network and cache.
        exported: a folder of graphs; None: export on demand.
        adapter_base: one of `ADAPTER_BASES`: where torch keeps the base's values of weights that adapters
            change.
        precision: one of `PRECISIONS`; None: all in the dtype.
        arenas: whether sessions of ONNX Runtime keep the memory of a run for the next.

    Raises:
        ValueError: when the backend lacks a package, or does not take the dtype, device or folder.
    """
    if name == "torch":
        from pyrf.backends.torch.backend import TorchBackend, cache_dtype_of, load_network

        model, merged = load_network(
            bundle, dtype=dtype, device=device, adapter_base=adapter_base, precision=precision
        )
        return TorchBackend(model, codec, bundle.stream_config, merged, cache_dtype_of(precision))
    if name == "tensorrt":
        from pyrf.backends.tensorrt.backend import load_tensorrt_backend

        return load_tensorrt_backend(
            bundle, codec, dtype=dtype, device=device, exported=exported, precision=precision
        )
    from pyrf.backends.onnxruntime.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(
        bundle, codec, dtype=dtype, device=device, exported=exported, precision=precision, arenas=arenas
    )
