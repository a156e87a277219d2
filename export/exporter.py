"""A bundle to a folder of ONNX graphs, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from pyrf.bundle.bundle import Bundle
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.dtypes import dtype_of, name_of
from pyrf.export.errors import ExportError
from pyrf.export.fingerprint import bundle_fingerprint, package_versions
from pyrf.export.graphs.decoder import decoder_graphs
from pyrf.export.graphs.fp8 import fp8_inputs
from pyrf.export.graphs.student import student_graphs
from pyrf.export.graphs.text_encoder import text_graphs
from pyrf.export.graphs.trace import TracedGraph, graph_spec, write_graphs
from pyrf.export.manifest import GRAPHS, MANIFEST, GraphSpec, Manifest, file_entry
from pyrf.export.options import Check, Report, check_exported_precision
from pyrf.files import whole_folder
from pyrf.models.codecs.codec import latent_size
from pyrf.models.dit.model import WanModel

PRECISIONS = ("float32", "float16", "bfloat16", "fp8")
CALIBRATION_PROMPTS = (
    "a red circle moves right",
    "a large blue square bounces on a white background",
    "a small yellow triangle stays still",
)


class ExportWriter:
    """Fills an empty folder with graphs, and with the manifest at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.graphs: dict[str, GraphSpec] = {}

    def add(self, graphs: Mapping[str, TracedGraph], weights: str) -> None:
        """Write graphs that share a file of weights."""
        write_graphs(self.folder, graphs, weights)
        for name, graph in graphs.items():
            self.graphs[name] = graph_spec(f"{name}.onnx", graph)

    def finish(
        self,
        *,
        dtype: str,
        fp8: bool,
        model: ModelConfig,
        stream: StreamConfig,
        size: LatentSize,
        weights: str,
        precision: str | None = None,
    ) -> Manifest:
        """Write the manifest."""
        manifest = Manifest(
            dtype=dtype,
            fp8=fp8,
            model=model,
            stream=stream,
            height=size.height,
            width=size.width,
            weights=weights,
            versions=package_versions(),
            graphs={name: self.graphs[name] for name in GRAPHS if name in self.graphs},
            files={path.name: file_entry(path) for path in sorted(self.folder.iterdir())},
            precision=precision,
        )
        (self.folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        return manifest


def export_onnx(
    bundle: Bundle,
    folder: str | Path,
    *,
    dtype: str = "float32",
    precision: str | None = None,
    height: int | None = None,
    width: int | None = None,
    device: str | torch.device = "cpu",
    check: Check | None = None,
    report: Report = lambda _: None,
) -> Manifest:
    """Export a bundle as ONNX graphs: student, text encoder and decoder (see `pyrf.export.manifest`).

    One part is in memory at a time.

    Args:
        bundle: what to export.
        folder: to be written; must not exist.
        dtype: "float32", "float16", "bfloat16", or "fp8": the products of the blocks' linears in float8,
            the rest in bfloat16. Scales come from rollouts of `CALIBRATION_PROMPTS` in bfloat16.
        precision: "fp8-attention": cache and products of self-attention in e4m3, as the torch backend's
            precision of that name; None: all in the dtype. Not beside the dtype "fp8".
        device: where these rollouts run.
        height, width: of a frame in pixels; by default the bundle's.
        check: looks at the graphs before the folder gets its name; when it raises, nothing is left.
        report: told what begins.

    Raises:
        ValueError: when an argument does not fit, or the check finds the graphs wrong.
        OSError: when the folder exists, or cannot be written.
    """
    if dtype not in PRECISIONS:
        raise ExportError(f"dtype must be one of {', '.join(PRECISIONS)}, got {dtype!r}")
    fp8 = dtype == "fp8"
    check_exported_precision(precision, dtype)
    dtype = "bfloat16" if fp8 else dtype
    torch_dtype, stream, config = dtype_of(dtype), bundle.stream_config, bundle.model_config
    with whole_folder(folder) as temporary:
        writer = ExportWriter(temporary)
        codec = bundle.codec(torch_dtype)
        size = latent_size(
            bundle.height if height is None else height,
            bundle.width if width is None else width,
            codec,
        )
        report("fingerprint of the weights")
        weights = bundle_fingerprint(bundle)
        report("the decoder")
        writer.add(decoder_graphs(codec, stream.chunk_frames, size), "decoder.weights")
        del codec
        report("the text encoder")
        text_encoder = bundle.text_encoder(torch_dtype)
        writer.add(text_graphs(text_encoder.network, config.text_len), "text.weights")
        prompts = [text_encoder.encode([prompt]) for prompt in CALIBRATION_PROMPTS] if fp8 else []
        del text_encoder
        largest = None
        if fp8:
            report("calibration")
            model = bundle.transformer(torch_dtype, device)
            largest = fp8_inputs(model, stream, prompts, size)
            del model
        report("the student")
        model = bundle.transformer(torch_dtype)
        writer.add(
            student_graphs(model, stream, size, precision=precision, fp8_inputs=largest), "student.weights"
        )
        del model
        report("the manifest")
        manifest = writer.finish(
            dtype=dtype,
            fp8=fp8,
            model=config,
            stream=stream,
            size=size,
            weights=weights,
            precision=precision,
        )
        if check is not None:
            check(temporary)
    return manifest


def export_student(model: WanModel, stream: StreamConfig, folder: Path, size: LatentSize) -> Manifest:
    """Export a student alone, without text encoder and decoder; no bundle owns its weights.

    Args:
        model: on the CPU, in the dtype to export.
        folder: to be written; must not exist.
        size: of the latents.

    Raises:
        OSError: when the folder exists, or cannot be written.
    """
    with whole_folder(folder) as temporary:
        writer = ExportWriter(temporary)
        writer.add(student_graphs(model, stream, size), "student.weights")
        return writer.finish(
            dtype=name_of(model.dtype),
            fp8=False,
            model=model.config,
            stream=stream,
            size=size,
            weights="",
        )
