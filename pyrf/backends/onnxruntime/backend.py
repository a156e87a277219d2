"""A bundle in ONNX Runtime: its export, and who streams with it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pyrf.backends.graphs.backend import GraphBackend
from pyrf.backends.onnxruntime.rollout import OnnxDecoder, OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.bundle.bundle import Bundle
from pyrf.config import LatentSize
from pyrf.export.manifest import load_manifest
from pyrf.models.codecs.codec import Codec


class OnnxRuntimeBackend(GraphBackend[GraphSet]):
    """A bundle in ONNX Runtime (`pyrf.backends.base.Backend`).

    Args:
        bundle: what to stream.
        codec: the bundle's, loaded.
        dtype, device: float32 on the CPU.
        exported: a folder that `pyrf export` wrote of this bundle; None: export when a size is first used.
        precision: "fp8-attention": the cache is in e4m3; None: in float32.
        arenas: whether sessions keep the memory of a run for the next.

    Raises:
        ValueError: when dtype, device or folder do not fit.
    """

    def __init__(
        self,
        bundle: Bundle,
        codec: Codec,
        *,
        dtype: torch.dtype,
        device: torch.device,
        exported: str | Path | None = None,
        precision: str | None = None,
        arenas: bool = True,
    ) -> None:
        if device.type != "cpu" or dtype != torch.float32:
            raise ValueError(
                f"the onnxruntime backend computes in float32 on the CPU, got {dtype} on {device}; "
                "for others take the torch backend"
            )

        def load(folder: Path) -> GraphSet:
            manifest = load_manifest(folder, check_content=False)
            return GraphSet(folder, manifest, torch.get_num_threads(), arenas=arenas)

        super().__init__(bundle, codec, dtype="float32", load=load, exported=exported, precision=precision)

    def open(self, batch: int, size: LatentSize, prompt_embeds: Tensor) -> OnnxRuntimeRollout:
        return OnnxRuntimeRollout(self._graphs(size), batch, size, prompt_embeds)

    def decoder(self, batch: int, size: LatentSize) -> OnnxDecoder:
        return OnnxDecoder(self._graphs(size), self._codec, batch)
