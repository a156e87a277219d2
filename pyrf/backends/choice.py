"""Which backend computes a pipeline's streams, and how a bundle is loaded for it."""

from __future__ import annotations

from pathlib import Path

import torch

from pyrf.backends.base import Backend
from pyrf.bundle.bundle import Bundle
from pyrf.dtypes import dtype_of, name_of
from pyrf.models.codecs.codec import Codec
from pyrf.models.dit.merging import MergedWeights

BACKENDS = ("torch", "onnxruntime", "tensorrt")
DTYPES = ("float32", "bfloat16", "float16")
ADAPTER_BASES = ("device", "cpu")


def check_backend(name: str, exported: str | Path | None) -> None:
    """Refuse a backend that does not exist, and an exported folder where none is read.

    Raises:
        ValueError: which one, and what there is.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "torch" and exported is not None:
        raise ValueError(
            f"the torch backend reads no exported folder, got {str(exported)!r}; "
            "choose onnxruntime or tensorrt"
        )
    if name == "tensorrt":
        from pyrf.export.tensorrt.library import load_tensorrt

        load_tensorrt()


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


def load_backend(
    name: str,
    bundle: Bundle,
    codec: Codec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    exported: str | Path | None,
    adapter_base: str = "device",
) -> Backend:
    """Load a bundle's student for a backend.

    Args:
        name: one of `BACKENDS`.
        codec: the bundle's, loaded.
        dtype, device: of network and cache.
        exported: a folder of graphs; None: export on demand.
        adapter_base: one of `ADAPTER_BASES`: where torch keeps the base's values of weights that adapters
            change.

    Raises:
        ValueError: when the backend lacks a package, or does not take the dtype, device or folder.
    """
    if name == "torch":
        from pyrf.backends.torch.backend import TorchBackend

        model = bundle.base_transformer(dtype=dtype, device=device)
        merged = None
        if bundle.adapters:
            merged = MergedWeights(
                model, bundle.adapters, keep_on=device if adapter_base == "device" else "cpu"
            )
        return TorchBackend(model, codec, bundle.stream_config, merged)
    if name == "tensorrt":
        from pyrf.backends.tensorrt.backend import load_tensorrt_backend

        return load_tensorrt_backend(bundle, codec, dtype=dtype, device=device, exported=exported)
    from pyrf.backends.onnxruntime.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, codec, dtype=dtype, device=device, exported=exported)
