"""The figures of `pyrf bench`, and the benchmark scripts at toy sizes."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import small
import torch

from pyrf import bench
from pyrf.pipeline import StreamingPipeline

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def keep_threads() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result_of(
    module: ModuleType,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict:
    """Run a script's main; its last line is JSON."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *options])
    module.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_percentile() -> None:
    values = [float(i) for i in range(200, 0, -1)]
    assert bench.percentile(values, 99) == 198
    assert bench.percentile(values, 50) == 100
    assert bench.percentile(values, 100) == 200
    assert bench.percentile([7.0], 99) == 7


def test_figures_agree_with_each_other(random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    result = bench.run(pipe, "random", load_s=1.5, chunks=4, repeats=3, warm_up=1)
    assert result.load_s == 1.5
    assert result.denoise_fps > result.end_to_end_fps
    assert result.chunk_p99_ms >= result.chunk_p50_ms
    assert result.peak_cuda_mib is None
    assert result.method.network_calls_per_chunk == 5
    assert (result.method.frame_size, result.method.window_frames) == ("32 x 48", 9)
    lines = bench.table(result)
    assert "warm-up 1 chunks, then 3 streams of 4 chunks" in lines
    assert "CUDA" not in lines
    with_device = bench.table(replace(result, peak_cuda_mib=512.0))
    assert with_device.splitlines()[-1].split() == ["peak", "CUDA", "512", "MiB"]


def test_long_stream(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(random_bundle), "--chunks", "111", "--threads", "1"]
    result = result_of(script("long_stream"), options, monkeypatch, capsys)
    assert result["frames"] == 9 + 110 * 12
    assert result["early_chunk_ms"] > 0
    # Not a figure of speed: a stream whose memory grew with its length would show here.
    assert abs(result["rss_change_percent"]) < 5


def test_reference_loop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("reference_loop")
    monkeypatch.setattr(module, "MODEL", replace(small.MODEL, text_len=4))
    monkeypatch.setattr(module, "HEIGHT", 4)
    monkeypatch.setattr(module, "WIDTH", 6)
    result = result_of(module, ["--repeats", "2", "--threads", "1"], monkeypatch, capsys)
    assert set(result["median_ms"]) == {"ours", "reference", "bare"}
    assert result["latents_max_difference"] < 1e-3


def test_full_size(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("full_size")
    monkeypatch.setattr(module, "ModelConfig", lambda num_layers: replace(small.MODEL, num_layers=num_layers))
    options = ["--layers", "1", "--height", "4", "--width", "4", "--threads", "1", "--chunks", "2"]
    result = result_of(module, options, monkeypatch, capsys)
    assert len(result["chunk_s"]) == 2
    assert result["dtype"] == "bfloat16"
    assert result["peak_rss_mib"] > 50


def test_cold_start(random_bundle: Path) -> None:
    assert script("cold_start").cold_start(str(random_bundle)) > 0
