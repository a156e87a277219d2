"""The doctor's findings that depend on the machine, with machines made up."""

import json
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import pyrf.ops
from pyrf.ops import native
from pyrf.ops.attention_choice import CHOICE, Choice, Workload
from pyrf.reports import doctor

METADATA = [
    "torch>=2.9",
    "pillow>=10",
    'pydantic>=2.8; extra == "train"',
    'not_installed_anywhere>=1; python_version >= "3.11" and extra == "engines"',
    'pyrf[train]; extra == "test"',
    'pytest>=8; extra == "test"',
]


@pytest.fixture
def gpu(monkeypatch):
    """One H100 whose tensors are fake."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, answer in {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "NVIDIA H100 80GB HBM3",
        "get_device_capability": (9, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(native, "kernels", object())
    monkeypatch.setattr(native, "_capability", lambda device: (9, 0))
    monkeypatch.setattr(CHOICE, "_mode", "auto")
    with FakeTensorMode():
        yield


def finding(name):
    return next(found for found in doctor.examine("nowhere") if found.name == name)


def test_packages_are_those_of_the_metadata(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda _: METADATA)
    needed = finding("packages")
    assert needed.ok
    assert needed.detail.startswith(f"torch {torch.__version__}, pillow ")
    optional = finding("optional packages")
    assert optional.ok
    assert optional.detail == (
        f"train (pydantic {version('pydantic')}); engines (no not_installed_anywhere); "
        "add one by pip install '.[engines]' in a clone of pyrf"
    )
    assert "pytest" not in optional.detail


def test_a_missing_package_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda _: ["torch", "not_installed_anywhere>=1"])
    found = finding("packages")
    assert not found.ok
    assert "not_installed_anywhere" in found.detail


def test_a_gpu_comes_with_its_driver_and_architecture(gpu, monkeypatch):
    monkeypatch.setattr(torch.utils.collect_env, "get_nvidia_driver_version", lambda run: "580.65.06")
    assert finding("cuda").detail == "13.0, driver 580.65.06, NVIDIA H100 80GB HBM3 (sm_90)"


def test_attention_is_timed_for_a_wan_chunk(gpu, monkeypatch):
    def ring_attention(q, keys, values, length):
        CHOICE.made[Workload.of(q, length)] = Choice("sdpa", {"pyrf": 3e-3, "sdpa": 2e-3})

    monkeypatch.setattr(CHOICE, "made", {})
    monkeypatch.setattr(pyrf.ops, "ring_attention", ring_attention)
    expected = "sdpa for 4680 queries and 14040 keys (pyrf 3.00 ms, sdpa 2.00 ms)"
    assert finding("attention").detail == expected
    assert next(iter(CHOICE.made)).dtype == torch.bfloat16


def test_attention_that_is_forced_or_the_only_one(gpu, monkeypatch):
    CHOICE.mode = "pyrf"
    assert finding("attention").detail == "pyrf, forced"
    monkeypatch.setattr(native, "kernels", None)
    expected = "torch's scaled_dot_product_attention: pyrf is built without CUDA kernels"
    assert finding("attention").detail == expected


def test_attention_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(CHOICE, "_mode", "sdpa")
    expected = "torch's scaled_dot_product_attention: forced; on CUDA devices sdpa"
    assert finding("attention").detail == expected
    monkeypatch.setattr(CHOICE, "_mode", "auto")
    monkeypatch.setattr(native, "cpu", SimpleNamespace(serves_ring_attention=lambda head_dim: True))
    assert finding("attention").detail == "pyrf, with AVX-512; on CUDA devices auto"
    monkeypatch.setattr(native, "cpu", None)
    assert "attention: pyrf's native module is not built; on" in finding("attention").detail
    monkeypatch.setattr(CHOICE, "_mode", None)
    monkeypatch.setenv("PYRF_ATTENTION", "flash")
    found = finding("attention")
    assert not found.ok
    assert "auto, pyrf, sdpa, got 'flash'" in found.detail


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("model", "size"), [("tiny", "64 x 96"), ("valley", "192 x 320")])
def test_the_bundled_models_are_asked_for_what_they_know(model, size):
    assert doctor._model(model, doctor.Loading()) == f"loads, and its first chunk has 9 frames of {size}"


def test_json_has_stable_keys(monkeypatch, capsys):
    """They are documented, and the model's name is not among them."""
    monkeypatch.setattr(doctor, "_model", lambda model, how: f"{model} loads")
    doctor.report("some/where", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["ok", "findings"]
    assert list(told["findings"]) == [
        "pyrf",
        "packages",
        "optional_packages",
        "native_module",
        "torch",
        "cpus",
        "cuda",
        "attention",
        "video_codecs",
        "memory",
        "model",
    ]
    assert told["findings"]["model"] == {"ok": True, "detail": "some/where loads"}
    assert told["ok"] == all(found["ok"] for found in told["findings"].values())


def test_json_tells_of_what_is_broken(monkeypatch, capsys):
    assert not doctor.report("/no/such/folder", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"]
    assert not told["findings"]["model"]["ok"]
