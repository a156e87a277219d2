"""Which backend `auto` takes, by what is installed and what the CPU is; and that it streams."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyrf.backends import choice
from pyrf.bundle import load_bundle
from pyrf.config import ModelConfig
from pyrf.pipeline import StreamingPipeline

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
WIDE = ModelConfig(dim=512, ffn_dim=2048, num_heads=4, num_layers=8)
"""33.6 million weights in its products, as of benchmarks/reference_loop.py."""


@pytest.mark.parametrize(
    ("capability", "wide", "installed", "dtype", "device", "taken"),
    [
        ("AVX512", False, True, torch.float32, CPU, "onnxruntime"),
        ("AVX512", True, True, torch.float32, CPU, "torch"),
        ("AVX2", True, True, torch.float32, CPU, "onnxruntime"),
        ("AVX2", False, False, torch.float32, CPU, "torch"),
        ("AVX2", False, True, torch.bfloat16, CPU, "torch"),
        ("AVX2", False, True, torch.bfloat16, GPU, "torch"),
    ],
)
def test_auto(
    capability: str,
    wide: bool,
    installed: bool,
    dtype: torch.dtype,
    device: torch.device,
    taken: str,
    random_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(choice, "is_installed", lambda module: installed)
    bundle = load_bundle(random_bundle)
    if wide:
        bundle = replace(bundle, model_config=WIDE)
    assert choice.fastest_backend(bundle, dtype, device) == taken


def test_auto_names_what_it_took(random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "is_installed", lambda module: False)
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), backend="auto")
    assert pipe.backend == "torch"


def test_auto_reads_no_folder() -> None:
    with pytest.raises(ValueError, match="the auto backend reads no exported folder"):
        choice.check_backend("auto", "folder")
