"""The models of `pyrf serve`: names, what several cannot have, and whether they fit together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI

from pyrf import cli
from pyrf.bundle import load_bundle
from pyrf.commands.served_models import load_models, parse_models
from pyrf.memory import choice
from pyrf.memory.bill import total
from pyrf.memory.choice import choose_setup
from pyrf.memory.setup import Setup

OPTIONS: dict[str, Any] = {
    "student": None,
    "backend": "torch",
    "dtype": "float32",
    "precision": None,
    "device": "cpu",
    "stream": (),
    "adapters": (),
    "adapter_base": "device",
    "gpus_per_stream": 1,
    "decoder_rank": None,
    "max_memory": None,
}


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(parse_models(["valley", "tiny"]).items()) == [("valley", "valley"), ("tiny", "tiny")]
    assert parse_models(["a=/models/a=1", "Wan-AI/Wan2.1"]) == {
        "a": "/models/a=1",
        "Wan-AI/Wan2.1": "Wan-AI/Wan2.1",
    }
    assert parse_models(["/models/a=1"]) == {"/models/a=1": "/models/a=1"}
    monkeypatch.chdir(tmp_path)
    Path("step=7").mkdir()
    assert parse_models(["step=7"]) == {"step=7": "step=7"}  # a folder of that name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tiny", "tiny"], "two models are called 'tiny'; name one of them: --model OTHER=tiny"),
        (["a=tiny", "a=valley"], "two models are called 'a'"),
        (["a="], "--model 'a=' names no model"),
        ([""], "--model '' names no model"),
    ],
)
def test_bad_names(given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_models(given)


@pytest.mark.parametrize(
    "flags",
    [
        ["--student", "a.safetensors"],
        ["--lora", "a.safetensors"],
        ["--stream", "self-forcing"],
        ["--fit", "9GiB"],
        ["--gpus-per-stream", "2"],
        ["--decoder-rank", "0"],
        ["--ray"],
    ],
)
def test_what_is_for_one_model_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--port", "0", "--model", "valley", "--model", "tiny", *flags]) == 2
    expected = f"error: {flags[0]} is for one model, and 2 are served: valley, tiny; leave it out"
    assert capsys.readouterr().err.startswith(expected)


def test_variables_and_flags_name_several(random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are loaded in that order, and the progress goes on with each."""
    made: list[tuple[FastAPI, list[float]]] = []

    def run(make: Any, *_: Any, **__: Any) -> None:
        progress: list[float] = []
        made.append((make(progress.append), progress))

    monkeypatch.setattr("pyrf.serve.server.run", run)
    monkeypatch.setenv("PYRF_MODEL", f"a={random_bundle} b={random_bundle}")
    assert cli.run(["serve", "--port", "0"]) == 0
    monkeypatch.delenv("PYRF_MODEL")
    assert cli.run(["serve", "--port", "0", "--model", f"a={random_bundle}"]) == 0
    (_, several), (_, one) = made
    assert several == pytest.approx([0.3, 0.6, 0.9])
    assert one == pytest.approx([0.3, 0.9])


def test_models_that_do_not_fit_together_are_refused_before_any_is_loaded(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them would fit alone."""
    models = {"first": str(random_bundle), "second": str(random_bundle)}
    bundle = load_bundle(str(random_bundle))
    setup = Setup(torch.float32, torch.device("cpu"), bundle.stream_config)
    bill = choose_setup(bundle, setup, always=True).bill
    assert bill is not None
    held = total(row for row in bill.held if row.part != "process")
    work = max(row.bytes for row in bill.work)
    monkeypatch.setattr(choice, "AMPLE", 10**9)  # count, however much is free
    loaded: list[object] = []
    monkeypatch.setattr("pyrf.loading.load", loaded.append)
    monkeypatch.setattr("pyrf.pipeline.StreamingPipeline", lambda *_: None)
    monkeypatch.setattr(choice, "free_bytes", lambda _: 2 * held + work)  # one of them works at a time
    load_models(models, OPTIONS, lambda _: None)
    assert len(loaded) == 2
    monkeypatch.setattr(choice, "free_bytes", lambda _: 2 * held + work - 1)
    with pytest.raises(ValueError, match=r"first .*, second .* together on cpu, and .* are free; serve"):
        load_models(models, OPTIONS, lambda _: None)
    assert len(loaded) == 2


def test_errors_name_the_model(random_bundle: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere") as alone:
        load_models({"second": nowhere}, OPTIONS, lambda _: None)
    with pytest.raises(ValueError, match="nowhere") as several:
        load_models({"first": str(random_bundle), "second": nowhere}, OPTIONS, lambda _: None)
    assert str(several.value) == f"model second: {alone.value}"
