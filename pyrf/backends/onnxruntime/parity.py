"""Does an export compute what torch computes? A short rollout of both, on the CPU."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyrf.backends.base import Rollout
from pyrf.backends.onnxruntime.backend import OnnxDecoder, OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle.bundle import Bundle
from pyrf.export.graphs.widen import widen
from pyrf.export.manifest import load_manifest
from pyrf.loop.sampler import ChunkLoop, SeededNoise
from pyrf.models.codecs.codec import StreamingDecoder


@dataclass(frozen=True)
class Parity:
    """How far the rollout of an export is from torch's in float32.

    Attributes:
        chunks: that were rolled out.
        max_error: largest difference of latents.
        relative_error: root mean square of the difference over that of the latents.
        psnr: of the frames in dB; infinite when they are equal.
        widened: whether what is bfloat16 in the export was computed as float32.
    """

    chunks: int
    max_error: float
    relative_error: float
    psnr: float
    widened: bool


def check_parity(bundle: Bundle, folder: Path, chunks: int) -> Parity:
    """Roll the same noise and prompt out in torch, in float32, and through an export's graphs.

    Args:
        bundle: what was exported.
        folder: the export.
        chunks: to roll out; more than the stream's slots include an eviction.
    """
    manifest = load_manifest(folder)
    size = manifest.height, manifest.width
    model = TorchRollout(bundle.transformer(), bundle.stream_config)
    codec = bundle.codec()
    expected = _roll_out(model, codec.decoder(), size, chunks)
    with tempfile.TemporaryDirectory() as temporary:
        widened = manifest.dtype == "bfloat16"
        if widened:
            manifest = widen(folder, Path(temporary))
            folder = Path(temporary)
        graphs = GraphSet(folder, manifest, torch.get_num_threads())
        found = _roll_out(OnnxRuntimeRollout(graphs), OnnxDecoder(graphs, codec, 1), size, chunks)
    difference = found[0] - expected[0]
    noise = (found[1].double() - expected[1].double()).square().mean().item()
    return Parity(
        chunks=chunks,
        max_error=difference.abs().max().item(),
        relative_error=(difference.norm() / expected[0].norm()).item(),
        psnr=10 * math.log10(255**2 / noise) if noise else math.inf,
        widened=widened,
    )


def _roll_out(
    backend: Rollout, decoder: StreamingDecoder, size: tuple[int, int], chunks: int
) -> tuple[Tensor, Tensor]:
    """Latents [chunks, F, C, H, W] and frames [T, height, width, 3] of a random prompt."""
    model, stream = backend.model_config, backend.stream
    generator = torch.Generator().manual_seed(0)
    backend.start(1, *size)
    backend.set_prompt(torch.randn(1, model.text_len, model.text_dim, generator=generator))
    loop = ChunkLoop(backend, stream, SeededNoise([0], (stream.chunk_frames, model.in_channels, *size)))
    latents = [loop.next_chunk() for _ in range(chunks)]
    backend.close()
    return torch.cat(latents), torch.cat([decoder.decode(x)[0] for x in latents])
