"""The figures of `pyrf bench`, and the benchmark scripts at toy sizes."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyrf import cli
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.ops import attention_choice, native
from pyrf.pipeline import StreamingPipeline, Timing
from pyrf.reports import bench
from pyrf.reports.roofline import Sizes, Work
from tests.support import networks
from tests.support.overlapped import overlap_decoders

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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
) -> dict[str, Any]:
    """Run a script's main; its last line is JSON."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *options])
    module.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def timed_alone(pipe: StreamingPipeline, *, chunks: int, repeats: int, warm_up: int) -> bench.Result:
    peers = {"it": bench.Loaded(pipe, 1.5)}
    return bench.run_in_turns(peers, "random", chunks=chunks, repeats=repeats, warm_up=warm_up)["it"]


def test_figures_agree_with_each_other(random_bundle: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    result = timed_alone(pipe, chunks=4, repeats=3, warm_up=1)
    assert result.load_s == 1.5
    assert result.denoise_fps is not None
    assert result.denoise_fps > result.end_to_end_fps
    assert result.chunk_p99_ms >= result.chunk_p50_ms
    assert result.peak_cuda_mib is None
    assert result.method.network_calls_per_chunk == 5
    assert (result.method.frame_size, result.method.window_frames) == ("32 x 48", 9)
    lines = bench.table(result)
    assert "warm-up 1 chunk, then 3 streams of 4 chunks" in lines
    assert "CUDA" not in lines
    with_device = bench.table(replace(result, peak_cuda_mib=512.0))
    assert with_device.splitlines()[-1].split() == ["peak", "CUDA", "512", "MiB"]


def test_figures_are_medians_of_what_was_timed(random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks without the first of each stream, which is shorter; the warm-up counts nowhere."""

    def timed(total: float) -> Timing:
        return Timing(prompt=0.0, denoise=0.5 * total, clean=0.1 * total, decode=0.4 * total, total=total)

    streams = iter(
        [
            (9, 100.0, 100.0, [timed(100.0)]),
            (33, 4.0, 0.5, [timed(0.5), timed(1.0), timed(2.0)]),
            (33, 6.0, 0.7, [timed(0.7), timed(3.0), timed(4.0)]),
            (33, 5.0, 0.9, [timed(0.9), timed(5.0), timed(6.0)]),
        ]
    )
    monkeypatch.setattr(bench, "_time_stream", lambda pipe, chunks: next(streams))
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    result = timed_alone(pipe, chunks=3, repeats=3, warm_up=1)
    assert result.end_to_end_fps == pytest.approx(33 / 5)
    assert result.denoise_fps == pytest.approx(33 / (0.6 * 7.7))
    assert result.first_frame_ms == pytest.approx(700)
    assert result.chunk_p50_ms == pytest.approx(3500)
    assert 5900 < result.chunk_p99_ms <= 6000


def test_backends_are_timed_in_turns(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []
    time_stream = bench._time_stream

    def timed(pipe: StreamingPipeline, chunks: int) -> Any:
        order.append(pipe.backend)
        return time_stream(pipe, chunks)

    monkeypatch.setattr(bench, "_time_stream", timed)
    command = ["bench", "--compare", "--model", str(random_bundle), "--chunks", "2", "--repeats", "2"]
    assert cli.run([*command, "--warm-up", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert order == ["torch", "onnxruntime"] * 3
    assert {name: one["method"]["backend"] for name, one in found["backends"].items()} == {
        "torch": "torch",
        "onnxruntime": "onnxruntime",
    }
    assert found["largest_difference"] <= 1
    assert found["auto"] == "onnxruntime"  # as the network is small
    assert cli.run([*command, "--backend", "onnxruntime"]) == 2
    assert "leave out --backend" in capsys.readouterr().err


def test_a_comparison_for_people(random_bundle: Path) -> None:
    result = timed_alone(
        StreamingPipeline.from_pretrained(str(random_bundle)), chunks=2, repeats=1, warm_up=0
    )
    lines = bench.comparison({"torch": result, "other": replace(result, denoise_fps=None)}, 1, "other")
    assert "2 backends in turns; their frames differ by 1 of 255 at most" in lines
    assert lines.splitlines()[-1] == "--backend auto takes other here"


def test_no_figure_for_denoising_that_overlaps(random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = StreamingPipeline.from_pretrained(str(random_bundle))
    overlap_decoders(pipe, monkeypatch)
    result = timed_alone(pipe, chunks=2, repeats=1, warm_up=0)
    assert json.loads(json.dumps(result.to_dict()))["denoise_fps"] is None
    lines = bench.table(result)
    assert "end to end" in lines
    assert "denoise only" not in lines


def test_long_stream(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("long_stream")
    monkeypatch.setattr(module, "SPAN", 30)
    options = ["--model", str(random_bundle), "--chunks", "111", "--threads", "1"]
    result = result_of(module, options, monkeypatch, capsys)
    assert result["frames"] == 9 + 110 * 12
    assert min(result[f"{name}_chunk_ms"] for name in ("early", "fresh", "late")) > 0
    # Not a figure of speed: a stream whose memory grew with its length would show here.
    assert abs(result["rss_change_percent"]) < 5


def test_reference_loop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("reference_loop")
    monkeypatch.setattr(module, "MODEL", replace(networks.MODEL, text_len=4))
    monkeypatch.setattr(module, "HEIGHT", 4)
    monkeypatch.setattr(module, "WIDTH", 6)
    result = result_of(module, ["--repeats", "2", "--threads", "1"], monkeypatch, capsys)
    assert set(result["median_ms"]) == {"torch", "onnxruntime", "reference", "bare"}
    assert result["latents_max_difference"] < 1e-3


def test_cpu_ops(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("cpu_ops")
    monkeypatch.setattr(module, "SIZES", (module.Sizes("small", 6, 2, 32, 48),))
    results = result_of(module, ["--repeats", "1", "--threads", "1"], monkeypatch, capsys)["results"]
    assert {"norm_rope_append", "ring_attention", "add_norm"} <= {result["op"] for result in results}
    for case in module.cases(module.SIZES[0]):
        ours = case.ours(1)
        with module.plain_torch():
            torchs = case.torchs(1)
        torch.testing.assert_close(ours, torchs, atol=1e-5, rtol=1e-5)


def test_full_size(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # it imports its neighbour
    module = script("full_size")
    monkeypatch.setattr(module, "MODELS", {"Wan2.1-T2V-1.3B": networks.MODEL})
    options = ["--layers", "1", "--height", "4", "--width", "4", "--threads", "1", "--chunks", "2"]
    result = result_of(module, options, monkeypatch, capsys)
    assert len(result["chunk_s"]) == 2
    assert result["dtype"] == "bfloat16"
    assert result["peak_rss_mib"] > 50


def test_cold_start(random_bundle: Path) -> None:
    assert script("cold_start").cold_start(str(random_bundle)) > 0


def test_kernels_says_what_it_cannot_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("kernels")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for options, code in (([], 0), (["--require-gpu"], 2)):
        monkeypatch.setattr(sys, "argv", ["kernels", *options])
        with pytest.raises(SystemExit) as stop:
            module.main()
        assert stop.value.code == code
        text, result = capsys.readouterr().out.splitlines()
        assert "no CUDA device" in text
        assert json.loads(result)["timed"] is False


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_times_each_op(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At toy sizes, by the wall clock, on a machine that pretends to have kernels."""
    module = script("kernels")
    monkeypatch.setattr(attention_choice.CHOICE, "_mode", "pyrf")
    monkeypatch.setattr(native, "kernels", "kernels")
    seen = []

    def timer(run: Callable[[], object]) -> float:
        seen.append((native.kernels, attention_choice.CHOICE.mode))
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    sizes = Sizes.of(networks.MODEL, StreamConfig(), 32, 48)
    results = {
        case.work.name: module.measure(case, timer, warm_up=1, repeats=3)
        for case in module.cases(sizes, LatentSize(4, 6), dtype, "cpu")
    }
    assert seen == 44 * [("kernels", "pyrf"), (None, "sdpa")]
    assert set(results) == {
        *("ema_sink_update", "norm_rope_append", "ring_attention", "add_norm", "bias_norm, VAE"),
        *("ema_sink_update, e4m3", "norm_rope_append, e4m3", "ring_attention_e4m3", "add_norm_e4m3"),
        *("quantise_rows", "quantise_rows, GELU"),
    }
    for pair in results.values():
        for one in pair.values():
            assert 0 < one["p10_us"] <= one["median_us"] <= one["p90_us"]
    one = module.figures(Work("x", flops=2e9, bytes=3e6), [1e-3, 2e-3, 5e-3])
    assert (one["median_us"], one["p90_us"]) == (2000, 5000)
    assert (one["gigabytes_per_s"], one["tflop_per_s"]) == (1.5, 1.0)
    module.show(results)
    assert capsys.readouterr().out.count("\n") == 23


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_at_full_size_on_fake_cuda(dtype: torch.dtype) -> None:
    """Every op takes what the script gives it on a GPU."""
    sizes = Sizes.of(ModelConfig(), StreamConfig(), 480, 832)
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        cases = script("kernels").cases(sizes, LatentSize(60, 104), dtype, "cuda:0")
        sink, append, attention, add_norm, vae, *narrow = cases
        assert sink.run() is None
        assert append.run().shape == (1, 12, 4680, 128)
        assert attention.run().shape == (1, 4680, 1536)
        assert [x.shape for x in add_norm.run()] == 2 * [(1, 4680, 1536)]
        assert vae.run().shape == (12 * 480 * 832, 96)
        sink, append, attention, add_norm, rows, hidden = narrow
        assert sink.run() is None
        assert append.run().shape == (1, 12, 4680, 128)
        assert [x.shape for x in add_norm.run()] == 2 * [(1, 4680, 1536)]
        assert [x.shape for x in rows.run()] == [(1, 4680, 1536), (1, 4680, 1)]
        assert [x.shape for x in hidden.run()] == [(1, 4680, 8960), (1, 4680, 1)]
