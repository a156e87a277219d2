"""The student at the size of Wan2.1-T2V-1.3B, by hand: does its export fit a machine of 24 GiB?"""

import json
import resource
import time
from pathlib import Path

import onnx
import pytest
import torch

from pyrf.checkpoint import unfilled
from pyrf.config import ModelConfig, StreamConfig
from pyrf.export.exporter import FolderWriter
from pyrf.export.student import student_graphs
from pyrf.models.dit import WanModel

HEIGHT, WIDTH = 60, 104  # of the latents of 480 x 832


@pytest.mark.slow
def test_the_full_size_exports_within_24_gib(tmp_path: Path, capsys) -> None:
    config, stream = ModelConfig(), StreamConfig()
    with unfilled():
        model = WanModel(config)
    model = model.to(torch.bfloat16).to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02, generator=generator)

    start = time.perf_counter()
    with FolderWriter(tmp_path / "export") as writer:
        graphs = student_graphs(model, stream, HEIGHT, WIDTH)
        traced_s = time.perf_counter() - start
        writer.add(graphs, "student.weights")
        manifest = writer.finish(
            dtype="bfloat16",
            fp8=False,
            model=config,
            stream=stream,
            height=HEIGHT,
            width=WIDTH,
            weights="random",
        )
    result = {
        "trace_s": traced_s,
        "total_s": time.perf_counter() - start,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "files_mib": {name: size / 2**20 for name, (size, _) in manifest.files.items()},
        "nodes": {name: len(graph.model.graph) for name, graph in graphs.items()},
    }
    with capsys.disabled():
        print(json.dumps(result, indent=1))
    assert manifest.lengths == (4680, 9360, 14040)
    onnx.checker.check_model(tmp_path / "export" / "denoise.onnx")
    weights = sum(p.numel() for p in model.parameters()) * 2
    assert manifest.files["student.weights"][0] == pytest.approx(weights, rel=0.01)
    assert result["peak_rss_gib"] < 24
