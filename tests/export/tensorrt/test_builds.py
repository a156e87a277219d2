"""TensorRT-RTX compiles every exported graph for a GPU that is not there (SM89); nothing is run.

RTX shares TensorRT's parser and network, not its compiler: this shows that the graphs are taken, strongly
typed, with attention and cache updates as layers. It does not show that TensorRT builds them for an H100.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyrf.config import LatentSize, StreamConfig
from pyrf.export.exporter import ExportWriter
from pyrf.export.graphs.decoder import decoder_graphs
from pyrf.export.manifest import GRAPHS, load_manifest
from pyrf.export.tensorrt.builder import BuildError, BuildRequest, build_engine
from pyrf.export.tensorrt.engines import BuildOptions, EngineFolder, EngineTarget
from pyrf.export.tensorrt.target import build_engines
from tests.export.graphs.test_decoder import wan_vae
from tests.support import exports

pytest.importorskip(
    "tensorrt_rtx", reason="needs the wheel tensorrt-rtx, which the test extra installs on Linux"
)

WORKER = (sys.executable, str(Path(__file__).with_name("rtx_worker.py")))
TARGET = EngineTarget("tensorrt_rtx test", "8.9")
OPTIONS = BuildOptions(worker=WORKER, time_limit=300)
LAYERS = exports.MODEL.num_layers
ATTENTIONS = {"denoise": 2 * LAYERS, "clean": 2 * LAYERS - 2}
"""Self- and cross-attention of each layer; the clean call ends at the last layer's keys and values."""


BUILT = {"float16": GRAPHS, "bfloat16": GRAPHS, "fp8": ("denoise", "clean")}
"""Graphs built in each dtype; the others of an fp8 export are bfloat16's."""


@pytest.fixture(scope="module", params=BUILT)
def built(request, tmp_path_factory):
    """The engines of a dtype: their folder, and the reports of their builds."""
    folder = tmp_path_factory.mktemp("engines") / request.param
    source = exports.exported(request.param)
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    engines = EngineFolder(folder, load_manifest(source), TARGET, OPTIONS)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(engines.engine, BUILT[request.param]))
    return engines


def test_every_graph_builds(built):
    assert set(built.built) == set(BUILT["fp8" if built.manifest.fp8 else built.manifest.dtype])
    for name, report in built.built.items():
        assert report.size > 10_000
        assert len(built.cache.load(built.key(name))) == report.size
        assert not [line for line in report.warnings if line.startswith("Unused Input")]


def test_attention_and_the_cache_are_layers_of_their_own(built):
    for name, count in ATTENTIONS.items():
        layers = built.built[name].layers
        assert layers["ATTENTION_INPUT"] == layers["ATTENTION_OUTPUT"] == count
        assert layers["KV_CACHE_UPDATE"] == 2 * LAYERS
        assert "SOFTMAX" not in layers  # attention taken apart
        assert "SCATTER" not in layers  # the cache copied, not updated
        assert layers["ROTARY_EMBEDDING"] == {"denoise": 2 * LAYERS, "clean": 2 * LAYERS - 1}[name]
        if built.manifest.fp8:
            # 8 weights and 6 inputs of products a layer; 2 and 1 in the last layer of the clean call.
            whole, weights, inputs = {"denoise": (LAYERS, 0, 0), "clean": (LAYERS - 1, 2, 1)}[name]
            assert layers["DEQUANTIZE"] == 14 * whole + weights + inputs
            assert layers["QUANTIZE"] == 6 * whole + inputs
    if "decoder_next" in built.built:
        assert built.built["decoder_next"].layers["CONVOLUTION"] > 0


def test_a_cache_in_e4m3_is_widened_before_a_fused_attention(tmp_path):
    folder = exports.exported("bfloat16", "fp8-attention")
    engines = EngineFolder(folder, load_manifest(folder), TARGET, OPTIONS)
    assert engines.key("denoise").dtype == "bfloat16+fp8-attention"
    asked = replace(engines.request("denoise", str(tmp_path / "plan")), timing_cache=None)
    report = build_engine(asked, worker=WORKER, time_limit=300)
    assert report.layers["ATTENTION_INPUT"] == report.layers["ATTENTION_OUTPUT"] == 2 * LAYERS
    assert "SOFTMAX" not in report.layers
    assert "KV_CACHE_UPDATE" not in report.layers
    # q and the chunk's own keys and values; these, and the cache's.
    assert (report.layers["QUANTIZE"], report.layers["DEQUANTIZE"]) == (3 * LAYERS, 5 * LAYERS)


def test_a_second_time_nothing_is_built(built):
    again = EngineFolder(built.folder, built.manifest, TARGET, replace(OPTIONS, worker=("false",)))
    for name in built.built:
        assert again.engine(name) == built.engine(name)
    assert not again.built


def test_the_summary_has_a_line_for_each_engine(built):
    if built.manifest.fp8:
        pytest.skip("not all of its engines are built here")
    stages: list[str] = []
    rows = build_engines(built, stages.append)
    assert len(rows) == len(stages) == 6
    denoise = next(row for row in rows if row.startswith("denoise"))
    assert "4 fused attentions, 4 cache updates" in denoise


def test_a_damaged_engine_is_reported_and_built_again(built):
    if built.manifest.fp8:
        pytest.skip("its quickest engine is not built here")
    lines: list[str] = []
    again = EngineFolder(built.folder, built.manifest, TARGET, OPTIONS, lines.append)
    path = again.cache.path(again.key("time"))
    path.write_bytes(path.read_bytes()[:-1])
    assert len(again.engine("time")) == again.built["time"].size
    assert str(path) in lines[0]
    assert "built again" in lines[0]


def request(tmp_path, dtype="float16", graph="denoise", **options):
    folder = exports.exported(dtype)
    manifest = load_manifest(folder)
    values = {"lengths": manifest.lengths if graph in ATTENTIONS else ()} | options
    return BuildRequest(str(folder / manifest.graphs[graph].file), str(tmp_path / "plan"), **values)


def test_an_input_that_would_be_ignored_fails_the_build(tmp_path):
    """`nonpad_kv_seqlen` of ONNX's Attention parses and builds, and is then ignored."""
    onnx = pytest.importorskip("onnx")
    shape = [1, 2, 18, 64]
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, shape) for name in "qkvo"]
    length = onnx.helper.make_tensor_value_info("length", onnx.TensorProto.INT64, [1])
    node = onnx.helper.make_node("Attention", ["q", "k", "v", "", "", "", "length"], ["o"])
    graph = onnx.helper.make_graph([node], "masked", [*tensors[:3], length], tensors[3:])
    opset = [onnx.helper.make_opsetid("", 24)]
    path = tmp_path / "masked.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset), path)
    with pytest.raises(BuildError, match="ignores inputs of the graph: Unused Input: length") as raised:
        build_engine(BuildRequest(str(path), str(tmp_path / "plan")), worker=WORKER)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "plan").exists()


def test_a_head_too_wide_for_a_fused_kernel_is_taken_apart(tmp_path):
    """As the one head of 384 channels in the Wan VAE; the student's heads never are."""
    onnx = pytest.importorskip("onnx")
    shape = [1, 1, 64, 384]
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, shape) for name in "qkvo"]
    node = onnx.helper.make_node("Attention", ["q", "k", "v"], ["o"])
    graph = onnx.helper.make_graph([node], "wide", tensors[:3], tensors[3:])
    path = tmp_path / "wide.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 24)]), path)
    report = build_engine(BuildRequest(str(path), str(tmp_path / "plan")), worker=WORKER)
    assert report.layers["ATTENTION_OUTPUT"] == 1
    assert (tmp_path / "plan").stat().st_size == report.size


def test_a_graph_that_tensorrt_does_not_take_is_named_with_the_reason(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(BuildError, match=r"^broken\.onnx: TensorRT does not take") as raised:
        build_engine(BuildRequest(str(path), str(tmp_path / "plan")), worker=WORKER)
    assert "\n" not in str(raised.value)


def test_a_builder_that_hangs_is_ended(tmp_path):
    hangs = (sys.executable, "-c", "import threading; threading.Event().wait()")
    with pytest.raises(BuildError, match="still building after 1 s"):
        build_engine(request(tmp_path, graph="time"), worker=hangs, time_limit=1)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.abort()", "ended with code -6"),
        ("import os; os.kill(os.getpid(), 9)", "killed, as when memory runs out"),
        ("raise MemoryError('no room')", "MemoryError: no room"),
    ],
)
def test_a_builder_that_dies_is_reported_in_a_line(tmp_path, program, message):
    with pytest.raises(BuildError, match=message) as raised:
        build_engine(request(tmp_path, graph="time"), worker=(sys.executable, "-c", program))
    assert "\n" not in str(raised.value)


def test_without_tensorrt_the_builder_says_what_to_install(tmp_path):
    blocked = (
        "import sys; sys.modules['tensorrt'] = None; from pyrf.export.tensorrt.builder import main; main()"
    )
    with pytest.raises(BuildError, match=r"pip install '\.\[tensorrt\]'"):
        build_engine(request(tmp_path, graph="time"), worker=(sys.executable, "-c", blocked))


def test_other_weights_are_put_into_the_engine_that_is_there(tmp_path):
    """RTX builds no refittable engine without a GPU, so here a script plays TensorRT."""
    folder, manifest = exports.exported("float16"), load_manifest(exports.exported("float16"))
    export = tmp_path / "export"
    export.mkdir()
    for path in folder.iterdir():
        (export / path.name).symlink_to(path)
    program = """
import json, pathlib, sys
request = json.load(sys.stdin)
old = request["refit"]
pathlib.Path(request["plan"]).write_bytes(b"new of " + pathlib.Path(old).read_bytes() if old else b"built")
report = {"runtime": "1", "seconds": 0.0, "layers": {}, "warnings": [], "size": 5}
pathlib.Path(sys.argv[-1]).write_text(json.dumps(report))
"""
    options = BuildOptions(refittable=True, worker=(sys.executable, "-c", program))
    lines: list[str] = []
    first = EngineFolder(export, manifest, TARGET, options, lines.append)
    assert first.engine("time") == b"built"
    retrained = EngineFolder(export, replace(manifest, weights="0" * 64), TARGET, options, lines.append)
    assert retrained.engine("time") == b"new of built"
    assert [line.split(" with ")[0] for line in lines] == ["time: built", "time: refitted"]
    fixed = replace(options, refittable=False)
    assert EngineFolder(export, manifest, TARGET, fixed, lines.append).engine("time") == b"built"
    assert first.engine("time") == b"built"


@pytest.mark.slow
def test_chunks_of_one_latent_frame(tmp_path):
    """Of the graphs, those of a Wan VAE differ: what it keeps of a first frame is filled up with zeros.

    Its head has 272 channels: narrower ones must find a fused kernel.
    """
    size, stream = LatentSize(4, 6), StreamConfig(chunk_frames=1, window_frames=3, sink_frames=1)
    writer = ExportWriter(tmp_path)
    writer.add(decoder_graphs(wan_vae(torch.float16, 136), 1, size), "decoder.weights")
    writer.finish(dtype="float16", fp8=False, model=exports.MODEL, stream=stream, size=size, weights="")
    engines = EngineFolder(tmp_path, load_manifest(tmp_path), TARGET, OPTIONS)
    for name in ("decoder_first", "decoder_next"):
        engines.engine(name)
        assert engines.built[name].size > 10_000
