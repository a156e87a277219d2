"""`--to tensorrt` and `--backend tensorrt` where TensorRT or a GPU is missing: a line, and exit code 2."""

import sys
from types import SimpleNamespace

import pytest
import torch

from pyrf import cli
from pyrf.export.errors import ExportError
from pyrf.export.tensorrt.engines import EngineTarget
from pyrf.export.tensorrt.target import target_of

EXPORT = ("export", "tiny", "--to", "tensorrt", "--out", "out", "--dtype", "bfloat16", "--device", "cpu")
TENSORRT = SimpleNamespace(__name__="tensorrt", __version__="10.16.1")
GENERATE = ("generate", "a red circle", "-o", "out.mp4", "--backend", "tensorrt", "--dtype", "bfloat16")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command that must fail and write nothing: its exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = cli.run(list(arguments))
        assert not list(tmp_path.iterdir())
        return code, capsys.readouterr().err.strip()

    return call


@pytest.mark.parametrize("arguments", [EXPORT, GENERATE])
def test_without_tensorrt(run, monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    code, error = run(*arguments)
    assert code == 2
    assert "pip install '.[tensorrt]'" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("arguments", [EXPORT, GENERATE])
def test_without_a_gpu(run, monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "tensorrt", TENSORRT)
    code, error = run(*arguments)
    assert code == 2
    assert "needs a CUDA device, got 'cpu'" in error
    assert len(error.splitlines()) == 1


def test_a_dtype_that_tensorrt_does_not_take(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", TENSORRT)
    code, error = run(*EXPORT, "--dtype", "float32")
    assert code == 2
    assert "must be one of bfloat16, float16, fp8, got 'float32'" in error


def test_engines_are_for_the_gpu_of_the_device(monkeypatch):
    capabilities = [(9, 0), (10, 3)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    for device, capability in (("cuda", "9.0"), ("cuda:0", "9.0"), ("cuda:1", "10.3")):
        expected = EngineTarget("tensorrt 10.16.1", capability)
        assert target_of(TENSORRT, torch.device(device)) == expected


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    def refuse(index):
        raise RuntimeError("no driver")

    monkeypatch.setattr(torch.cuda, "get_device_capability", refuse)
    with pytest.raises(ExportError, match=r"no usable NVIDIA GPU \(no driver\)"):
        target_of(TENSORRT, torch.device("cuda"))
