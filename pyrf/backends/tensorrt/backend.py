"""A bundle in TensorRT: its export, its engines, and who streams with them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrf.backends.graphs.backend import GraphBackend
from pyrf.backends.tensorrt.cuda import CudaDevice
from pyrf.backends.tensorrt.rollout import PlanSet, TensorRTDecoder, TensorRTRollout
from pyrf.backends.tensorrt.runtime import TensorRTPlan
from pyrf.bundle.bundle import Bundle
from pyrf.config import LatentSize
from pyrf.dtypes import name_of
from pyrf.export.errors import ExportError
from pyrf.export.manifest import DECODER, STUDENT, load_manifest
from pyrf.export.tensorrt.engines import BuildOptions, EngineFolder, EngineTarget
from pyrf.export.tensorrt.library import load_tensorrt
from pyrf.models.codecs.codec import Codec

logger = logging.getLogger(__name__)

COMPUTE_DTYPES = (torch.bfloat16, torch.float16)

OpenPlans = Callable[[Path], PlanSet]
"""Loads the engines of an exported folder, and builds those that it lacks."""


class TensorRTBackend(GraphBackend[PlanSet]):
    """A bundle in TensorRT (`pyrf.backends.base.Backend`).

    Args:
        bundle: what to stream.
        codec: the bundle's, loaded.
        dtype: bfloat16 or float16.
        open_plans: how an exported folder's engines are loaded.
        exported: a folder that `pyrf export` wrote of this bundle; None: export when a size is first used.
        precision: "fp8-attention": the cache is in e4m3; None: in the dtype.

    Raises:
        ValueError: when the dtype or the folder does not fit.
    """

    def __init__(
        self,
        bundle: Bundle,
        codec: Codec,
        *,
        dtype: torch.dtype,
        open_plans: OpenPlans,
        exported: str | Path | None = None,
        precision: str | None = None,
    ) -> None:
        if dtype not in COMPUTE_DTYPES:
            raise ExportError(
                f"the tensorrt backend computes in bfloat16 or float16, got {dtype}; "
                "give dtype bfloat16, or use backend torch"
            )
        super().__init__(
            bundle, codec, dtype=name_of(dtype), load=open_plans, exported=exported, precision=precision
        )

    @property
    def plans(self) -> PlanSet:
        """The engines that were loaded first, of the frame size that streams have by default."""
        return next(iter(self._loaded.values()))

    def open(self, batch: int, size: LatentSize, prompt_embeds: Tensor) -> TensorRTRollout:
        return TensorRTRollout(self._graphs(size), batch, size, prompt_embeds)

    def decoder(self, batch: int, size: LatentSize) -> TensorRTDecoder:
        return TensorRTDecoder(self._graphs(size), batch)


def plans_on_gpu(trt: Any, device: CudaDevice, options: BuildOptions | None = None) -> OpenPlans:
    """Load engines with TensorRT, and build what an exported folder has none of, for this GPU."""

    def open_plans(folder: Path) -> PlanSet:
        manifest = load_manifest(folder)
        here = replace(options or BuildOptions(), device=device.index)
        built_for = EngineTarget.of(trt, device.compute_capability)
        engines = EngineFolder(folder, manifest, built_for, here, logger.warning)
        plans = {}
        for name in (*STUDENT, *DECODER):
            engine, graph = engines.engine(name), manifest.graphs[name]
            lengths = manifest.lengths if any(t.name == "length" for t in graph.inputs) else ()
            plans[name] = TensorRTPlan(trt, name, engine, graph.aliases, lengths, device.torch_device)
        return PlanSet(manifest, plans, device)

    return open_plans


def load_tensorrt_backend(
    bundle: Bundle,
    codec: Codec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    exported: str | Path | None,
    precision: str | None,
) -> TensorRTBackend:
    """A bundle in TensorRT on a GPU.

    Raises:
        ValueError: when TensorRT, the driver, the GPU or room on it is missing, or an argument does not fit.
    """
    trt = load_tensorrt()
    open_plans = plans_on_gpu(trt, CudaDevice(device))
    return TensorRTBackend(
        bundle, codec, dtype=dtype, open_plans=open_plans, exported=exported, precision=precision
    )
