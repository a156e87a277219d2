"""Bills of the backends that run graphs: beside measured peaks, and beside what graphs and engines hold."""

import logging
import re
from pathlib import Path

import pytest
import torch

from pyrf.backends.tensorrt.rollout import TensorRTDecoder, TensorRTRollout
from pyrf.bundle import Bundle, load_bundle
from pyrf.config import LatentSize
from pyrf.export.exporter import export_onnx
from pyrf.export.manifest import DECODER, STUDENT, load_manifest
from pyrf.loading import check_together, decide
from pyrf.memory import choice
from pyrf.memory.bill import Bill
from pyrf.memory.choice import check_engines
from pyrf.memory.engines import EngineSizes
from pyrf.memory.estimate import Estimator
from pyrf.memory.graphs import decoder_weights, student_weights
from pyrf.memory.parts import Parts
from pyrf.memory.setup import Setup
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec
from tests.memory.test_estimate import measured_peak, medium_bundle, part
from tests.support import exports, networks
from tests.support.host_device import SCRATCH, WEIGHTS, HostDevice, host_plans

CPU = torch.device("cpu")


def setup_of(bundle: Bundle, backend: str, **options: object) -> Setup:
    return Setup(torch.float32, CPU, bundle.stream_config, backend=backend, **options)  # type: ignore[arg-type]


def compare(path: Path | str, folder: Path, *options: str) -> None:
    """Estimates beside measured peaks, with a limit and without: within 10 %."""
    for keep in ([], ["--keep"]):
        asked = ("--backend", "onnxruntime", "--exported", str(folder), *options, *keep)
        found = measured_peak(path, *asked)
        assert found["peak"] == pytest.approx(found["measured"], rel=0.1)
        assert found["loading"] == pytest.approx(found["measured_loading"], rel=0.1)


def exported_by(path: Path | str, folder: Path, precision: str | None = None) -> Path:
    export_onnx(load_bundle(path), folder, precision=precision)
    return folder


def wide_bundle(path: Path) -> Path:
    return medium_bundle(path, TAEHVCodec(networks.randomise(TAEHV())), 224, 320)


def test_tiny_in_onnxruntime_beside_its_measured_peak(tmp_path: Path) -> None:
    compare("tiny", exported_by("tiny", tmp_path / "graphs"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["valley", "medium", "wide"])
def test_models_in_onnxruntime_beside_their_measured_peaks(model: str, tmp_path: Path) -> None:
    """Of the medium network weights are most, of the wide frames what decoding takes."""
    path: Path | str = model
    if model == "medium":
        path = medium_bundle(tmp_path / model)
    elif model == "wide":
        path = wide_bundle(tmp_path / model)
    compare(path, exported_by(path, tmp_path / "graphs"))


@pytest.mark.slow
def test_a_ring_in_e4m3_beside_its_measured_peaks(tmp_path: Path) -> None:
    path, precision = wide_bundle(tmp_path / "wide"), "fp8-attention"
    compare(path, exported_by(path, tmp_path / "graphs", precision), "--precision", precision)


def test_weights_are_those_of_the_graphs() -> None:
    ir = pytest.importorskip("onnx_ir")
    bundle, folder = exports.bundle(), exports.exported("float32")
    parts, setup = Parts(bundle), setup_of(bundle, "onnxruntime")
    counted = student_weights(parts, setup) | dict.fromkeys(DECODER, decoder_weights(parts, setup))
    for name, spec in load_manifest(folder).graphs.items():
        if name in counted:
            values = ir.load(folder / spec.file).graph.initializers.values()
            # What is no parameter has a name without a dot: shapes, and zeros where they are few.
            held = sum(value.const_value.nbytes for value in values if "." in value.name)
            assert counted[name] == pytest.approx(held, rel=0.01), name
    assert set(counted) == {*STUDENT, *DECODER}


def test_what_sessions_keep_counts_once() -> None:
    estimator = Estimator(exports.bundle())
    kept = estimator.bill(setup_of(exports.bundle(), "onnxruntime"))
    given_back = estimator.bill(setup_of(exports.bundle(), "onnxruntime", arenas=False))
    assert part(kept, "arenas") > part(given_back, "decoding") + part(given_back, "denoising")
    assert kept.per_stream == given_back.per_stream
    assert "arenas" not in given_back.to_dict()["held"]
    assert kept.loading == pytest.approx(given_back.loading, rel=0.01)


def test_scores_grow_with_the_window() -> None:
    """Attention keeps them in ONNX Runtime, which torch's does not."""
    bundle = exports.bundle()
    narrow, wide = (
        part(Estimator(one).bill(setup_of(one, "onnxruntime", arenas=False)), "denoising")
        for one in (bundle, choice.with_window(bundle, 21))
    )
    tokens = 3 * LatentSize(4, 6).tokens
    more = 4 * tokens  # slots are 3 and 7
    scores = exports.MODEL.num_heads * tokens * more
    assert wide - narrow == 4 * (scores + 3 * more * exports.MODEL.dim)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_a_ring_in_e4m3_takes_a_quarter_of_float32s_and_its_entries_are_counted(backend: str) -> None:
    estimator, model = Estimator(exports.bundle()), exports.MODEL
    plain, narrow = (
        estimator.bill(setup_of(exports.bundle(), backend, precision=precision))
        for precision in (None, "fp8-attention")
    )
    assert part(plain, "ring") == 4 * part(narrow, "ring")
    tokens = 3 * LatentSize(4, 6).tokens
    assert part(narrow, "entries") == 2 * model.num_layers * tokens * model.dim
    assert part(narrow, "sink's hidden bits") == 4 * part(narrow, "entries")


def engines_bill() -> tuple[Bill, HostDevice]:
    """As stand-ins tell it, and the device on which a stream of them was opened."""
    device = HostDevice()
    plans = host_plans(exports.exported("float32"), device)
    size, model = LatentSize(4, 6), exports.MODEL
    TensorRTRollout(plans, 1, size, torch.zeros(1, model.text_len, model.text_dim))
    TensorRTDecoder(plans, 1)
    bundle = exports.bundle()
    return Estimator(bundle).bill(setup_of(bundle, "tensorrt"), EngineSizes.of(plans)), device


def test_engines_tell_what_they_hold() -> None:
    bill, device = engines_bill()
    assert part(bill, "engines") == len((*STUDENT, *DECODER)) * WEIGHTS
    assert part(bill, "scratch") == HostDevice().room - device.room == 2 * SCRATCH


def test_engines_are_counted_before_they_are_loaded() -> None:
    bundle = exports.bundle()
    bill = Estimator(bundle).bill(setup_of(bundle, "tensorrt"))
    network = sum(p.nbytes for p in bundle.transformer().parameters())
    assert network < part(bill, "engines") < 2.5 * network
    assert part(bill, "scratch") > 0
    assert bill.per_stream > part(bill, "scratch") + part(bill, "ring")
    assert any("no engine is loaded yet" in row.how for row in bill.held)


def test_engines_that_leave_no_room_for_a_stream_are_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, plans = exports.bundle(), host_plans(exports.exported("float32"))
    setup = setup_of(bundle, "tensorrt")
    needed = Estimator(bundle).bill(setup, EngineSizes.of(plans)).per_stream
    monkeypatch.setattr(choice, "free_bytes", lambda _: needed)
    with caplog.at_level(logging.INFO, "pyrf.memory"):
        check_engines(bundle, setup, plans)
    assert "engines are loaded, so it is what they say" in caplog.text
    monkeypatch.setattr(choice, "free_bytes", lambda _: needed - 1)
    with pytest.raises(ValueError, match=r"a stream needs .* more on cpu, and .* are free"):
        check_engines(bundle, setup, plans)


def test_models_of_other_backends_are_counted_together(
    random_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = {
        backend: decide(
            str(random_bundle),
            student=None,
            backend=backend,
            dtype="float32",
            device="cpu",
            stream=(),
            adapters=(),
            adapter_base="device",
            precision=None,
            gpus_per_stream=1,
            decoder_rank=None,
            max_memory=None,
        )
        for backend in ("torch", "onnxruntime")
    }
    monkeypatch.setattr(choice, "free_bytes", lambda _: 10**6)
    with pytest.raises(ValueError, match=re.escape("torch ") + ".*, onnxruntime .* together on cpu"):
        check_together(decisions)
