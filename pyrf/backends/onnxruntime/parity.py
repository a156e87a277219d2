"""Does an export compute what torch computes at its precision? A short rollout of both, on the CPU."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyrf.backends.base import Rollout
from pyrf.backends.onnxruntime.rollout import OnnxDecoder, OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle.bundle import Bundle
from pyrf.export.errors import ExportError
from pyrf.export.graphs.widen import widen
from pyrf.export.manifest import FP8_ATTENTION, load_manifest
from pyrf.loop.noise import gauss
from pyrf.models.codecs.codec import StreamingDecoder
from pyrf.ops.e4m3 import E4M3
from pyrf.printing import counted


@dataclass(frozen=True)
class Bound:
    """What an export in some precision may differ from torch in float32 by.

    Attributes:
        relative_error: at most.
        psnr: of the frames in dB, at least.
    """

    relative_error: float
    psnr: float


BOUNDS = {
    "float32": Bound(1e-3, 50.0),
    "float16": Bound(0.05, 30.0),
    "bfloat16": Bound(0.1, 25.0),
    "fp8": Bound(0.5, 20.0),
    f"float32 with {FP8_ATTENTION}": Bound(0.05, 30.0),
    f"float16 with {FP8_ATTENTION}": Bound(0.05, 30.0),
    f"bfloat16 with {FP8_ATTENTION}": Bound(0.1, 25.0),
}
"""By precision, with room above what was measured (docs/export.md). Faults of graphs go far beyond them."""


@dataclass(frozen=True)
class Parity:
    """How far the rollout of an export is from torch's in float32, with a cache of the same precision.

    Attributes:
        precision: of the export, one of `BOUNDS`.
        chunks: that were rolled out.
        max_error: largest difference of latents.
        relative_error: root mean square of the difference over that of the latents.
        psnr: of the frames in dB; infinite when they are equal.
        widened: whether what is bfloat16 in the export was computed as float32.
    """

    precision: str
    chunks: int
    max_error: float
    relative_error: float
    psnr: float
    widened: bool

    def __str__(self) -> str:
        torchs = "float32" + (f" with {FP8_ATTENTION}" if FP8_ATTENTION in self.precision else "")
        return (
            f"{counted(self.chunks, 'chunk')} in ONNX Runtime with torch in {torchs}: latents differ "
            f"by {self.max_error:.1e} at most, {self.relative_error:.1e} of their size; frames "
            f"{self.psnr:.1f} dB" + ("; bfloat16 was computed as float32" if self.widened else "")
        )

    def check(self) -> None:
        """Refuse what lies outside the bound, or is not a number.

        Raises:
            ExportError: with what was found and what was allowed.
        """
        bound = BOUNDS[self.precision]
        if not (self.relative_error <= bound.relative_error and self.psnr >= bound.psnr):
            raise ExportError(
                f"the {self.precision} graphs do not compute what torch computes. Of {self}. Allowed are "
                f"{bound.relative_error:g} of the latents' size, and frames of {bound.psnr:g} dB or more. "
                "Leave the check out to write them all the same"
            )


def measure_parity(bundle: Bundle, folder: Path, chunks: int) -> Parity:
    """Roll the same noise and prompt out in torch, in float32, and through an export's graphs.

    Where the export's cache is in e4m3, so is torch's.

    Args:
        bundle: what was exported.
        folder: the export.
        chunks: to roll out; more than the stream's slots include an eviction.
    """
    manifest = load_manifest(folder)
    codec, config = bundle.codec(), bundle.model_config
    generator = torch.Generator("cpu").manual_seed(0)
    prompt = gauss((1, config.text_len, config.text_dim), generator)
    cache_dtype = None if manifest.precision is None else E4M3
    model = TorchRollout(bundle.transformer(), bundle.stream_config, 1, manifest.size, prompt, cache_dtype)
    expected = _roll_out(model, codec.decoder(), chunks)
    del model
    with tempfile.TemporaryDirectory() as temporary:
        widened = manifest.dtype == "bfloat16"
        if widened:
            manifest = widen(folder, Path(temporary))
            folder = Path(temporary)
        graphs = GraphSet(folder, manifest, torch.get_num_threads())
        rollout = OnnxRuntimeRollout(graphs, 1, manifest.size, prompt)
        found = _roll_out(rollout, OnnxDecoder(graphs, codec, 1), chunks)
    difference = found[0] - expected[0]
    noise = (found[1].double() - expected[1].double()).square().mean().item()
    return Parity(
        precision=("fp8" if manifest.fp8 else "bfloat16" if widened else manifest.dtype)
        + (f" with {manifest.precision}" if manifest.precision else ""),
        chunks=chunks,
        max_error=difference.abs().max().item(),
        relative_error=(difference.norm() / expected[0].norm()).item(),
        psnr=10 * math.log10(255**2 / noise) if noise else math.inf,
        widened=widened,
    )


def _roll_out(rollout: Rollout, decoder: StreamingDecoder, chunks: int) -> tuple[Tensor, Tensor]:
    """Latents [chunks, F, C, H, W] and frames [T, height, width, 3] of seed 0."""
    loop = rollout.loop([0])
    latents = [loop.next_chunk() for _ in range(chunks)]
    return torch.cat(latents), torch.cat([decoder.decode(x)[0] for x in latents])
