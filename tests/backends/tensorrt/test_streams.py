"""The public API on the TensorRT backend, its engines played by ONNX Runtime on host memory."""

from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch

import pyrf
from pyrf.backends.tensorrt.rollout import TensorRTRollout
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize
from pyrf.export.errors import ExportError
from pyrf.export.tensorrt.engines import EngineFolder
from tests.support import exports
from tests.support.emulated_native import EmulatedKernels, cpu_tensors_take_the_cuda_path
from tests.support.host_device import HostDevice, host_plans

tensorrt_engine = import_module("pyrf.backends.tensorrt.backend")


@pytest.fixture
def pipes(monkeypatch):
    """Pipelines of one bundle: with TensorRT as far as it can be played here, and with torch."""
    # ONNX Runtime's, to compare closely.
    monkeypatch.setattr(tensorrt_engine, "COMPUTE_DTYPES", (*tensorrt_engine.COMPUTE_DTYPES, torch.float32))
    bundle = exports.bundle()
    engines = pyrf.StreamingPipeline.from_pretrained(str(bundle.path))
    backend = tensorrt_engine.TensorRTBackend(
        bundle,
        engines.codec,
        dtype=torch.float32,
        open_plans=host_plans,
        exported=exports.exported("float32"),
    )
    engines.model = replace(engines.model, backend=backend)
    return engines, pyrf.StreamingPipeline.from_pretrained(str(bundle.path))


def differ(found, wanted):
    assert found.shape == wanted.shape
    return np.abs(found.astype(int) - wanted.astype(int)).max()


def test_a_video_equals_torch(pipes):
    videos = [pipe("a red circle moves", num_frames=50, seed=3).frames for pipe in pipes]
    assert differ(*videos) <= 1


def test_a_prompt_takes_effect_at_the_next_chunk_though_that_was_begun(pipes):
    streams = [pipe.stream("a red circle", seed=0) for pipe in pipes]
    for index in range(6):
        if index in (2, 4):
            for stream in streams:
                stream.prompt = "a blue square moves"
        chunks = [next(stream) for stream in streams]
        assert differ(*(chunk.frames for chunk in chunks)) <= 1
        assert chunks[0].prompt == chunks[1].prompt
        assert chunks[0].index == index
    for stream in streams:
        stream.close()


def test_clips_side_by_side_and_a_given_start_equal_torch(pipes):
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    prompts = ["a red circle", "a blue square"]
    made = [pipe(prompts, num_frames=30, seed=1, image=image, start="still") for pipe in pipes]
    for found, wanted in zip(*made):
        assert differ(found.frames, wanted.frames) <= 1


def test_other_sizes_and_dtypes_are_refused(pipes):
    bundle = exports.bundle()
    with pytest.raises(ExportError, match="exported for frames of 32 x 48, got 64 x 48; take its height"):
        pipes[0].stream("a red circle", height=64, width=48)
    with pytest.raises(
        ValueError, match=r"exported from another dtype \(float32, the bundle's is bfloat16\)"
    ):
        tensorrt_engine.TensorRTBackend(
            bundle,
            pipes[0].codec,
            dtype=torch.bfloat16,
            open_plans=host_plans,
            exported=exports.exported("float32"),
        )
    with pytest.raises(ValueError, match=r"bfloat16 or float16, got torch\.float64"):
        tensorrt_engine.TensorRTBackend(bundle, pipes[0].codec, dtype=torch.float64, open_plans=host_plans)


def test_engines_are_loaded_once_and_not_for_another_size(pipes):
    opened = []

    def open_plans(folder):
        opened.append(folder)
        return host_plans(folder)

    folder = exports.exported("float32")
    backend = tensorrt_engine.TensorRTBackend(
        exports.bundle(), pipes[0].codec, dtype=torch.float32, open_plans=open_plans, exported=folder
    )
    rows = torch.zeros(1, exports.MODEL.text_len, exports.MODEL.text_dim)
    for make in (partial(backend.open, prompt_embeds=rows), backend.decoder):
        make(1, LatentSize(4, 6))
        with pytest.raises(ExportError, match="exported for frames of 32 x 48, got 64 x 48"):
            make(1, LatentSize(8, 6))
    assert opened == [folder]


def test_float16_with_the_sink_updated_by_the_kernels(monkeypatch):
    """What stands in the engines' buffers is read and written by csrc's kernels, through their emulation."""
    folder, stream = exports.exported("float16"), exports.STREAM
    model = exports.bundle().transformer(dtype=torch.float16)
    rows = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0)).half()
    kernels = EmulatedKernels()

    def latents(rollout):
        chunks = rollout.loop([0])
        return torch.cat([chunks.next_chunk() for _ in range(6)])

    size = LatentSize(4, 6)
    reference = latents(TorchRollout(model, stream, 1, size, rows))
    with cpu_tensors_take_the_cuda_path(monkeypatch, kernels):
        engines = latents(TensorRTRollout(host_plans(folder, HostDevice()), 1, size, rows))
    assert kernels.calls == ["ema_sink_update"] * 3 * exports.MODEL.num_layers
    error = (engines - reference).float().norm() / reference.float().norm()
    assert error < 0.02


def test_a_pipeline_streams_in_float16(monkeypatch):
    """The text encoder is in bfloat16, whose range its activations need."""
    monkeypatch.setattr("pyrf.loading.check_backend", lambda *_: None)
    for name in ("load_tensorrt", "CudaDevice"):
        monkeypatch.setattr(tensorrt_engine, name, lambda *_: None)
    monkeypatch.setattr(tensorrt_engine, "plans_on_gpu", lambda *_: host_plans)
    path, exported = str(exports.bundle().path), exports.exported("float16")
    pipe = pyrf.StreamingPipeline.from_pretrained(
        path, backend="tensorrt", dtype="float16", exported=exported
    )
    assert next(pipe.text_encoder.network.parameters()).dtype == torch.bfloat16
    found, wanted = (
        made("a red circle moves", num_frames=30, seed=3).frames
        for made in (pipe, pyrf.StreamingPipeline.from_pretrained(path))
    )
    assert differ(found, wanted) <= 8


def test_engines_are_built_for_the_gpu_they_run_on(monkeypatch):
    """Keys hold the release of TensorRT and the compute capability that the machine reports."""
    asked = []

    class StopError(Exception):
        pass

    def engine(self, graph):
        asked.append(self.key(graph))
        raise StopError

    monkeypatch.setattr(EngineFolder, "engine", engine)
    trt = type("TensorRT", (), {"__name__": "tensorrt", "__version__": "10.16.1"})()
    device = type("Device", (), {"compute_capability": "9.0", "index": 0})()
    with pytest.raises(StopError):
        tensorrt_engine.plans_on_gpu(trt, device)(exports.exported("float16"))
    assert asked[0].runtime == "tensorrt 10.16.1"
    assert asked[0].compute_capability == "9.0"
    assert asked[0].dtype == "float16"


def test_a_source_that_comes_while_chunks_overlap_is_restyled_as_by_torch(pipes):
    """The chunk under way when it comes was begun from noise; later ones wait for their frames."""
    clip = np.random.default_rng(0).integers(0, 255, (60, 32, 48, 3), dtype=np.uint8)
    streams = [pipe.stream("a red circle", seed=0, strength=0.7) for pipe in pipes]
    first = [next(stream) for stream in streams]
    assert differ(*(chunk.frames for chunk in first)) <= 1
    for stream in streams:
        stream.set_source(pyrf.Source(clip))
    begun = next(streams[0])
    assert begun.strength is None
    assert next(streams[0]).strength == 0.7
    for stream in streams:
        stream.close()
    made = [pipe.stream("a red circle", seed=0, source=clip, strength=0.7) for pipe in pipes]
    for _ in range(4):
        chunks = [next(stream) for stream in made]
        assert differ(*(chunk.frames for chunk in chunks)) <= 1
        assert chunks[0].strength == 0.7
    for stream in made:
        stream.close()
