"""Which setup is chosen for a memory, what is said of one that is too small; and the choice is loaded."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pyrf import cli
from pyrf.backends.graphs import backend as graphs
from pyrf.bundle import load_bundle, save_bundle
from pyrf.config import LatentSize, StreamConfig
from pyrf.memory import choice
from pyrf.memory.bill import GIB
from pyrf.memory.choice import choose_setup, parse_size, with_window
from pyrf.memory.estimate import Estimator
from pyrf.memory.setup import Setup
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec
from pyrf.models.codecs.wan_vae import WanVAE, build_network
from pyrf.models.text.encoder import BriefTextEncoder
from pyrf.models.text.umt5 import UMT5Config
from pyrf.pipeline import StreamingPipeline
from tests.support import exports, networks
from tests.support.unloaded import GPU, wan_bundle

ASKED = Setup(torch.bfloat16, GPU, StreamConfig())
PROMPT = "a red circle moves right"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 80 GB, all of it free."""
    monkeypatch.setattr(choice, "free_bytes", lambda device: 80 * 10**9)


@pytest.mark.parametrize(
    ("given", "size"),
    [("12GiB", 12 * GIB), ("12 gib", 12 * GIB), ("800MB", 800_000_000), ("1.5GiB", 3 * GIB // 2), (7, 7)],
)
def test_sizes(given: str | int, size: int) -> None:
    assert parse_size(given) == size


@pytest.mark.parametrize("given", ["", "much", "12 parsecs", "-1GiB", "0", 0, True, "crop"])
def test_no_sizes(given: str | int) -> None:
    with pytest.raises(ValueError, match="max_memory must be a size"):
        parse_size(given)


@pytest.mark.parametrize(
    ("limit", "chosen"),
    [
        ("40GiB", []),
        ("23GiB", ["decoding one latent frame at a time"]),
        ("12GiB", ["the text encoder on the CPU", "decoding one latent frame at a time"]),
        (
            "10GiB",
            [
                "the text encoder on the CPU",
                "decoding one latent frame at a time",
                "a window of 6 latent frames",
            ],
        ),
    ],
)
def test_what_costs_least_is_chosen(limit: str, chosen: list[str], free: None) -> None:
    found = choose_setup(wan_bundle(text=UMT5Config()), ASKED, limit)
    assert found.bill is not None
    assert found.bill.peak * choice.MARGIN <= parse_size(limit)
    assert sorted(found.setup.changes(ASKED)) == sorted(chosen)
    assert all(change in found.why for change in chosen)


def test_a_wide_window_is_shortened_no_more_than_needed(free: None) -> None:
    bundle = wan_bundle("taehv", window_frames=21)
    asked = Setup(torch.bfloat16, GPU, bundle.stream_config)
    found = choose_setup(bundle, asked, "9GiB")
    assert 9 < found.setup.stream.window_frames < 21
    wider = Setup(
        torch.bfloat16, GPU, StreamConfig(window_frames=found.setup.stream.window_frames + 3), text="cpu"
    )
    assert Estimator(bundle).bill(wider).peak * choice.MARGIN > 9 * GIB


def test_too_small_says_what_would_fit(free: None) -> None:
    with pytest.raises(
        ValueError, match=r"wan-1.3B needs \d+\.\d GiB on cuda:0, and 4.0 GiB are allowed"
    ) as e:
        choose_setup(wan_bundle(text=UMT5Config()), ASKED, "4GiB")
    for option in (
        "the text encoder on the CPU",
        "a window of 6 latent frames",
        "with TAEHV as its codec 6.",
        "put taew2_1.safetensors in wan-1.3B",
    ):
        assert option in str(e.value)


def test_a_full_gpu_is_refused_with_the_limit_that_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "free_bytes", lambda device: 12 * GIB)
    bundle = wan_bundle(text=UMT5Config())
    with pytest.raises(ValueError, match=r"12.0 GiB are free; --fit 12.0GiB .* the text encoder on the CPU"):
        choose_setup(bundle, ASKED)
    assert choose_setup(bundle, ASKED, "12.0GiB").setup.text == "cpu"


def test_nothing_is_counted_where_far_more_is_free(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(random_bundle)
    asked = Setup(torch.float32, torch.device("cpu"), bundle.stream_config)
    estimator = Estimator(bundle)
    held = sum(row.bytes for row in estimator.bill(asked).held if row.part != "process")
    assert estimator.at_most(asked) > held
    monkeypatch.setattr(Estimator, "bill", lambda *_: pytest.fail("counted"))
    monkeypatch.setattr(choice, "free_bytes", lambda device: 17 * estimator.at_most(asked))
    assert choose_setup(bundle, asked).bill is None
    monkeypatch.setattr(choice, "free_bytes", lambda device: 15 * estimator.at_most(asked))
    with pytest.raises(pytest.fail.Exception):
        choose_setup(bundle, asked)


def test_what_is_free_is_no_limit_where_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "free_bytes", lambda device: None)
    assert choose_setup(wan_bundle(), ASKED).setup == ASKED


def test_a_bundle_with_another_window_says_so(random_bundle: Path) -> None:
    bundle = load_bundle(random_bundle)
    assert with_window(bundle, bundle.stream_config.window_frames) is bundle
    narrow = with_window(bundle, 6)
    assert narrow.stream_config.window_frames == 6
    assert narrow.choice.to_dict() == {"window_frames": 6}


def least_memory(path: Path) -> int:
    """Bytes that hold the bundle only with its text encoder freed."""
    bundle = load_bundle(path)
    asked = Setup(torch.float32, torch.device("cpu"), bundle.stream_config)
    return int(Estimator(bundle).bill(asked).peak * choice.MARGIN) - 1


def test_the_choice_is_loaded_and_shows_the_same(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pyrf.memory.estimate.rss_bytes", lambda: 10**8)
    with caplog.at_level(logging.INFO, "pyrf.memory"):
        pipe = StreamingPipeline.from_pretrained(str(random_bundle), max_memory=least_memory(random_bundle))
    assert "the text encoder read anew for each prompt" in caplog.text
    assert isinstance(pipe.text_encoder, BriefTextEncoder)
    usual = StreamingPipeline.from_pretrained(str(random_bundle))
    timeline = {1: "a blue square"}
    found, expected = (one(PROMPT, num_frames=21, timeline=timeline).frames for one in (pipe, usual))
    assert (found == expected).all()
    assert pipe.unknown_words("a purple circle") == usual.unknown_words("a purple circle")


def test_the_tiny_codec_of_the_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrf.memory.estimate.rss_bytes", lambda: 0)
    bundle_path = save_bundle(
        tmp_path / "wide",
        transformer=networks.dit(),
        codec=WanVAE(networks.randomise(build_network({"base_dim": 32, "decoder_base_dim": 32}))),
        text_encoder=networks.text_encoder(),
        stream_config=StreamConfig(denoising_steps=(1000,)),
        height=64,
        width=96,
    )
    bundle = load_bundle(bundle_path)
    asked = Setup(torch.float32, torch.device("cpu"), bundle.stream_config)
    limit = int(1.2 * Estimator(bundle).bill(replace(asked, tiny_codec=True)).peak)
    with pytest.raises(ValueError, match=r"with TAEHV as its codec \d+ MiB: put taew2_1.safetensors in"):
        choose_setup(bundle, asked, limit)
    tiny = networks.randomise(TAEHV())
    save_file(tiny.state_dict(), bundle_path / "taew2_1.safetensors")
    pipe = StreamingPipeline.from_pretrained(str(bundle_path), max_memory=limit)
    assert isinstance(pipe.codec, TAEHVCodec)
    loaded, expected = pipe.codec.network.state_dict(), tiny.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.items())
    assert pipe(PROMPT, num_frames=9).frames.shape == (9, 64, 96, 3)
    assert isinstance(StreamingPipeline.from_pretrained(str(bundle_path)).codec, WanVAE)


def test_a_model_that_does_not_fit_is_not_read(random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrf.memory.choice.free_bytes", lambda device: 10**4)
    monkeypatch.setattr("pyrf.bundle.bundle.Bundle.base_transformer", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match="are free"):
        StreamingPipeline.from_pretrained(str(random_bundle))


def test_a_limit_ends_the_arenas_of_onnxruntime() -> None:
    path, folder = exports.bundle().path, exports.exported("float32")
    arenas = []
    for limit in ("100GiB", None):
        pipe = StreamingPipeline.from_pretrained(
            str(path), backend="onnxruntime", exported=folder, max_memory=limit
        )
        with pipe.stream(PROMPT) as stream:
            next(stream)
        options = pipe.model.backend._graphs(LatentSize(4, 6))["denoise"].session.get_session_options()  # type: ignore[attr-defined]
        arenas.append((options.enable_cpu_mem_arena, options.enable_mem_pattern))
    assert arenas == [(False, False), (True, True)]


def test_a_folder_of_graphs_keeps_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter one would need another export, which is made where no folder is given."""
    monkeypatch.setattr("pyrf.memory.estimate.rss_bytes", lambda: 0)
    bundle = exports.bundle()
    cpu = torch.device("cpu")
    asked = Setup(torch.float32, cpu, bundle.stream_config, text="freed", backend="onnxruntime")
    least = choose_setup(bundle, asked, "1GiB").bill
    assert least is not None
    limit = int(least.peak * choice.MARGIN) - 1
    assert choose_setup(bundle, asked, limit).setup.stream.window_frames < 9
    with pytest.raises(ValueError, match="are allowed"):
        choose_setup(bundle, replace(asked, exported=exports.exported("float32")), limit)


def test_what_would_do_in_onnxruntime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrf.memory.estimate.rss_bytes", lambda: 0)
    bundle = exports.bundle()
    asked = Setup(torch.float32, torch.device("cpu"), bundle.stream_config, backend="onnxruntime")
    given_back = Estimator(bundle).bill(replace(asked, arenas=False)).peak
    free = int(1.11 * given_back)
    assert Estimator(bundle).bill(asked).peak > free
    monkeypatch.setattr(choice, "free_bytes", lambda device: free)
    with pytest.raises(ValueError, match=r"--fit .* by sessions that keep no memory for the next run"):
        choose_setup(bundle, asked)
    with pytest.raises(ValueError, match="--backend torch needs less") as told:
        choose_setup(bundle, asked, 1)
    assert "bfloat16" not in str(told.value)


def test_too_little_is_refused_before_an_export(random_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrf.memory.choice.free_bytes", lambda device: 10**4)
    monkeypatch.setattr(graphs, "stored_export", lambda *_, **__: pytest.fail("exported"))
    with pytest.raises(ValueError, match="are free"):
        StreamingPipeline.from_pretrained(str(random_bundle), backend="onnxruntime")


def test_generate_tells_what_it_chose(
    random_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", PROMPT, "-o", str(tmp_path / "x.gif"), "--seconds", "1"]
    assert cli.run([*command, "--model", str(random_bundle), "--fit", "100GiB"]) == 0
    told = capsys.readouterr().err
    assert "memory: process" in told
    assert "fits into 100.0 GiB as it is" in told
    assert cli.run([*command, "--model", str(random_bundle), "--fit", "1MiB"]) == 2
    assert "1 MiB are allowed" in capsys.readouterr().err


def test_the_doctor_shows_the_bill(random_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--model", str(random_bundle), "--fit", "100GiB", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["findings"]["memory"]
    assert memory["ok"]
    assert "fits into 100.0 GiB as it is" in memory["detail"]
    held, work = memory["bytes"]["held"], memory["bytes"]["work"]
    assert memory["bytes"]["peak"] == sum(held.values()) + max(work.values())


def test_the_doctor_counts_for_a_backend(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two graphs hold what the network holds once."""
    monkeypatch.setattr("pyrf.reports.doctor._model", lambda *_: "not loaded here")
    networks_held = {}
    for backend in ("torch", "onnxruntime", "auto"):
        assert cli.run(["doctor", "--model", str(random_bundle), "--backend", backend, "--json"]) == 0
        memory = json.loads(capsys.readouterr().out)["findings"]["memory"]
        networks_held[backend] = memory["bytes"]["held"]["network"]
    assert 1.3 < networks_held["onnxruntime"] / networks_held["torch"] < 2
    assert networks_held["auto"] == networks_held["onnxruntime"]  # a small network
