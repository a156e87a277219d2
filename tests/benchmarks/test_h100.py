"""The script for an H100, as far as a CPU goes: its torch peer with captured calls, and its figures."""

import sys
from importlib import util
from pathlib import Path

import pytest
import torch

import pyrf
from tests.support import exports

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "h100.py"


@pytest.fixture(scope="module")
def h100():
    spec = util.spec_from_file_location("h100", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["h100"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["h100"]


class Captures:
    """Plays CUDA graphs: a call is recorded with what it reads, and every replay writes one result."""

    def __init__(self):
        self.count = 0

    def __call__(self, call):
        self.count += 1
        first = call()
        result = None if first is None else torch.full_like(first, torch.nan)

        def replay():
            new = call()
            if result is not None:
                result.copy_(new)

        return replay, result


@pytest.fixture
def pipes(h100):
    path = str(exports.bundle().path)
    eager, captured = (pyrf.StreamingPipeline.from_pretrained(path) for _ in range(2))
    captures = Captures()
    h100.use_backend(captured, h100.CapturedTorchBackend(captured.model.backend, lambda call: call, captures))
    return eager, captured, captures


def test_captured_torch_equals_torch_and_captures_each_call_once(h100, pipes):
    eager, captured, captures = pipes
    streams = [pipe.stream("a red circle", seed=0) for pipe in (eager, captured)]
    for index in range(7):
        if index == 5:
            for stream in streams:
                stream.prompt = "a blue square"
        frames = [next(stream).frames.astype(int) for stream in streams]
        assert abs(frames[0] - frames[1]).max() <= 1
    assert captures.count == 4 + 1  # of the full window; each length of the warm-up is met once only


def test_figures(h100, pipes):
    eager, captured, _ = pipes
    result = h100.measure({"torch": eager, "compile": captured}, warm_up=1, repeats=3)
    errors = result["latents_relative_error"]
    assert list(errors) == ["compile"]
    assert max(errors["compile"]) < 1e-4
    for name in ("denoise_only", "end_to_end"):
        for row in result[name].values():
            assert row["p50_ms"] <= row["p99_ms"]
            assert row["fps"] == pytest.approx(1e3 * 12 / row["p50_ms"])
        assert "compile" in h100.table(name, result[name])
