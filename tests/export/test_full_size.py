"""The sizes of Wan2.1-T2V-1.3B at 480 x 832, with random weights, by hand:

    pytest -m slow tests/export/test_full_size.py -s

Does its export fit a machine of 24 GiB? Are a cut of two layers and the VAE's decoder compiled by
TensorRT-RTX, which needs no GPU to build? Prints times, memory and sizes.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import nn

from pyrf.bundle.weights import unfilled
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.export.exporter import ExportWriter, export_student
from pyrf.export.graphs.decoder import decoder_graphs
from pyrf.export.manifest import Manifest
from pyrf.export.tensorrt.builder import BuildRequest, build_engine
from pyrf.models.codecs.wan_vae import WanVAE, build_network
from pyrf.models.dit.model import WanModel

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 60, 104  # of the latents of 480 x 832
STREAM = StreamConfig()
LENGTHS = (4680, 9360, 14040)
WORKER = (sys.executable, str(Path(__file__).parent / "tensorrt" / "rtx_worker.py"))


def fill(module: nn.Module) -> nn.Module:
    """Random weights, small enough for bfloat16 activations."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.02, generator=generator)
    return module


def random_student(layers: int) -> WanModel:
    """In bfloat16 from the start: a wider copy would not fit beside the export."""
    with unfilled():
        model = WanModel(ModelConfig(num_layers=layers))
    model = model.to(torch.bfloat16).to_empty(device="cpu").requires_grad_(False)
    fill(model)
    return model


def nodes(folder: Path, manifest: Manifest) -> dict[str, int]:
    """Of each graph."""
    files = {name: folder / spec.file for name, spec in manifest.graphs.items()}
    return {name: len(onnx.load(file, load_external_data=False).graph.node) for name, file in files.items()}


@contextmanager
def peak_memory(result: dict[str, object]) -> Iterator[None]:
    """Add the most that this process and its children hold at a time, GiB, looked at often."""
    process, peak, done = psutil.Process(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            total = process.memory_info().rss
            for child in process.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        result["peak_gib"] = round(peak / 2**30, 2)


def tell(capsys: pytest.CaptureFixture[str], result: dict[str, object]) -> None:
    with capsys.disabled():
        print(json.dumps(result))


def test_the_student_exports_within_24_gib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {}
    with peak_memory(result):
        model = random_student(ModelConfig().num_layers)
        start = time.perf_counter()
        manifest = export_student(model, STREAM, tmp_path / "export", LatentSize(HEIGHT, WIDTH))
    result["export_s"] = round(time.perf_counter() - start, 1)
    result["nodes"] = nodes(tmp_path / "export", manifest)
    result["mib"] = {name: round(size / 2**20, 1) for name, (size, _) in manifest.files.items()}
    tell(capsys, result)
    assert manifest.lengths == LENGTHS
    onnx.checker.check_model(tmp_path / "export" / "denoise.onnx")
    weights = sum(p.numel() for p in model.parameters()) * 2
    assert manifest.files["student.weights"][0] == pytest.approx(weights, rel=0.01)
    assert float(str(result["peak_gib"])) < 24


def build(folder: Path, name: str, lengths: tuple[int, ...] = ()) -> dict[str, Any]:
    """Compile a graph for SM89: seconds, MiB, and the layers that the network is made of."""
    pytest.importorskip("tensorrt_rtx", reason="needs the wheel tensorrt-rtx")
    request = BuildRequest(str(folder / f"{name}.onnx"), str(folder / f"{name}.plan"), lengths)
    report = build_engine(request, worker=WORKER)
    assert (folder / f"{name}.plan").stat().st_size == report.size
    return {"s": round(report.seconds, 1), "mib": round(report.size / 2**20, 1), "layers": report.layers}


def test_two_layers_of_the_student_become_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "export"
    result: dict[str, Any] = {}
    with peak_memory(result):
        start = time.perf_counter()
        export_student(random_student(2), STREAM, folder, LatentSize(HEIGHT, WIDTH))
        result["export_s"] = round(time.perf_counter() - start, 1)
        for name in ("denoise", "clean"):
            result[name] = build(folder, name, LENGTHS)
            layers = result[name]["layers"]
            assert layers["KV_CACHE_UPDATE"] == 4
            assert layers["ATTENTION_INPUT"] == {"denoise": 4, "clean": 2}[name]
    tell(capsys, result)


def test_the_vae_decoder_becomes_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result: dict[str, Any] = {}
    with peak_memory(result):
        with unfilled():
            network = build_network(dict(AutoencoderKLWan().config))
        fill(network.to_empty(device="cpu"))
        codec = WanVAE(network, decoder_dtype=torch.float16)
        start = time.perf_counter()
        writer = ExportWriter(tmp_path)
        writer.add(decoder_graphs(codec, STREAM.chunk_frames, LatentSize(HEIGHT, WIDTH)), "decoder.weights")
        result["export_s"] = round(time.perf_counter() - start, 1)
        for name in ("decoder_first", "decoder_next"):
            result[name] = build(tmp_path, name)
            assert result[name]["layers"]["CONVOLUTION"] > 30
    tell(capsys, result)
