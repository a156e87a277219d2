"""The TensorRT loop, its engines played by ONNX Runtime on host memory: all of it but TensorRT and CUDA."""

import gc
import sys
import weakref
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from pyrf.backends.onnxruntime.rollout import OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.tensorrt import nvtx
from pyrf.backends.tensorrt.bound_plan import BoundPlan
from pyrf.backends.tensorrt.cuda import CudaDevice
from pyrf.backends.tensorrt.device import DeviceError
from pyrf.backends.tensorrt.rollout import PlanSet, TensorRTDecoder, TensorRTRollout
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize
from pyrf.export.errors import ExportError
from pyrf.export.manifest import DECODER, STUDENT, load_manifest
from pyrf.export.tensorrt.library import load_tensorrt
from pyrf.extras import MissingExtraError
from tests.support import exports
from tests.support.host_device import HostDevice, HostPlan, host_plans

CHUNKS = 6
SIZE = LatentSize(4, 6)
SHAPE = (3, 16, *SIZE)


@pytest.fixture(scope="module")
def folder():
    return exports.exported("float32")


@pytest.fixture(scope="module")
def model():
    return exports.bundle().transformer()


def prompts(batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, exports.MODEL.text_len, exports.MODEL.text_dim, generator=generator)


def engines(folder, device=None, batch=1, rows=None):
    """A rollout of an exported folder's engines."""
    plans = folder if isinstance(folder, PlanSet) else host_plans(folder, device)
    return TensorRTRollout(plans, batch, SIZE, prompts(batch) if rows is None else rows)


def torchs(model, batch=1):
    return TorchRollout(model, exports.STREAM, batch, SIZE, prompts(batch))


def close(found, wanted, tolerance=3e-5):
    assert (found - wanted).abs().max() <= tolerance


def test_a_long_rollout_equals_torch(folder, model):
    device = HostDevice()
    found, reference = engines(folder, device).loop([0]), torchs(model).loop([0])
    for _ in range(CHUNKS):
        close(found.next_chunk(), reference.next_chunk())
    # From its second run on, each call of each length is a graph: four denoise calls a chunk, one clean.
    lengths = exports.STREAM.slots
    assert device.captures == lengths + 1 + 1  # denoise of every length, clean of the last, and time


def test_a_batch_and_a_prompt_switch_with_recache_equal_torch(folder, model):
    rollouts = engines(folder, batch=2), torchs(model, 2)
    loops = [rollout.loop([0, 1]) for rollout in rollouts]
    for i in range(CHUNKS):
        if i in (2, 5):
            for rollout in rollouts:
                rollout.set_prompt(prompts(2, seed=i), recache=True)
        close(*(each.next_chunk() for each in loops))


@pytest.mark.parametrize("recache", [False, True])
def test_with_a_cache_in_e4m3_it_equals_the_same_graphs_in_onnxruntime(recache):
    """These equal torch's (tests/export/graphs/test_e4m3.py)."""
    folder = exports.exported("float32", "fp8-attention")
    graphs = GraphSet(folder, load_manifest(folder), threads=1)
    rollouts = engines(folder), OnnxRuntimeRollout(graphs, 1, SIZE, prompts())
    loops = [rollout.loop([0]) for rollout in rollouts]
    for i in range(CHUNKS):
        if i in (2, 5):
            for rollout in rollouts:
                rollout.set_prompt(prompts(seed=i), recache=recache)
        assert torch.equal(*(each.next_chunk() for each in loops))
    found, expected = (rollout.cache for rollout in rollouts)
    for one, other in zip((*found.keys, *found.values), (*expected.keys, *expected.values)):
        assert one.dtype == torch.float8_e4m3fn
        assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_a_second_stream_begins_afresh_and_the_firsts_memory_goes_with_it(folder):
    plans = host_plans(folder)
    rollout = engines(plans)
    first = rollout.loop([0]).next_chunk()
    buffer = weakref.ref(rollout.cache.keys[0])
    del rollout
    assert buffer() is None
    close(engines(plans).loop([0]).next_chunk(), first, 0.0)


def test_a_chunk_made_again_under_another_prompt_is_the_one_that_prompt_had_made(folder, model):
    rollout, reference = engines(folder), torchs(model)
    chunks, expected = rollout.loop([0]), reference.loop([0])
    for i in range(CHUNKS):
        made = chunks.next_chunk()
        if i in (1, 4):
            rollout.set_prompt(prompts(seed=i))
            made = chunks.redo_chunk()
            reference.set_prompt(prompts(seed=i))
        close(made, expected.next_chunk())


def test_only_a_finished_chunk_is_reopened(folder):
    with pytest.raises(RuntimeError, match="comes after a commit"):
        engines(folder).reopen_chunk()


def test_the_decoder_may_work_as_late_as_it_likes(folder):
    device = HostDevice()
    plans = host_plans(folder, device)
    engines(plans)
    decoder, reference = TensorRTDecoder(plans, 1), exports.bundle().codec().decoder()
    generator = torch.Generator().manual_seed(0)
    latents = [torch.randn(1, *SHAPE, generator=generator) for _ in range(5)]
    pending = [decoder.begin(x) for x in latents]
    assert device.streams[-1].lazy
    for frames, x in zip(pending, latents):
        difference = frames.result().int() - reference.decode(x).int()
        assert difference.abs().max() <= 1  # a level of rounding
    whole = TensorRTDecoder(plans, 1).decode(torch.cat(latents, 1))
    assert whole.shape == (1, 57, 32, 48, 3)
    with pytest.raises(ValueError, match="must be a chunk"):
        decoder.begin(latents[0][:, :2])


def test_scratch_memory_lives_as_long_as_what_runs_in_it(folder, monkeypatch):
    plans = host_plans(folder)
    made, allocate = [], plans.device.allocate

    def allocated(size):
        memory = allocate(size)
        made.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(plans.device, "allocate", allocated)
    rollout, decoder = engines(plans), TensorRTDecoder(plans, 1)
    gc.collect()
    assert [memory() is None for memory in made] == [False, False]
    del rollout, decoder
    gc.collect()
    assert [memory() is None for memory in made] == [True, True]


def test_every_stage_has_a_range(folder, monkeypatch):
    seen = []

    @contextmanager
    def annotate(name):
        seen.append(name)
        yield

    monkeypatch.setattr(nvtx.nvtx, "annotate", annotate)
    plans = host_plans(folder)
    latents = engines(plans).loop([0]).next_chunk()
    TensorRTDecoder(plans, 1).decode(latents)
    stages = ["prompt", "begin_chunk", *4 * ["denoise"], "clean", "decode"]
    assert seen == [f"pyrf.{name}" for name in stages]


def test_an_output_of_the_cache_at_another_address_is_refused(folder):
    plans = host_plans(folder)
    spec = plans.manifest.graphs["clean"]
    buffers = {t.name: torch.zeros(t.shape, dtype=getattr(torch, t.dtype)) for t in spec.outputs}
    device = plans.device
    arguments = plans.plans["clean"], device, device.stream(), plans.scratch(STUDENT)
    with pytest.raises(ExportError, match=r"keys_out\.0 must lie at the address of keys\.0") as raised:
        BoundPlan(*arguments, buffers, plans.manifest.lengths[0])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (torch.zeros(1, 2, 54, 64, dtype=torch.float16), r"must be .* float32, got .* torch\.float16"),
        (torch.zeros(1, 2, 36, 64), r"must be \[1, 2, 54, 64\]"),
        (torch.zeros(1, 54, 2, 64).transpose(1, 2), "must be contiguous"),
        (torch.zeros(1 + 2 * 54 * 64)[1:].view(1, 2, 54, 64), "aligned to 16 bytes"),
        (torch.zeros(1, 2, 54, 64, device="meta"), "must lie on cpu"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(folder, buffer, message):
    plans = host_plans(folder)
    device = plans.device
    arguments = plans.plans["clean"], device, device.stream(), plans.scratch(STUDENT)
    with pytest.raises(ExportError, match=message):
        BoundPlan(*arguments, {"keys.0": buffer}, plans.manifest.lengths[0])


def test_a_length_that_no_engine_has_is_refused(folder):
    plans = host_plans(folder)
    device = plans.device
    arguments = plans.plans["clean"], device, device.stream(), plans.scratch(STUDENT)
    with pytest.raises(ExportError, match="got 17"):
        BoundPlan(*arguments, {}, 17)


def test_sizes_that_the_engines_are_not_for_are_refused(folder):
    with pytest.raises(ExportError, match="exported for latents of 4 x 6, got 8 x 6"):
        TensorRTRollout(host_plans(folder), 1, LatentSize(8, 6), prompts())
    with pytest.raises(ValueError, match="prompt_embeds must be"):
        engines(folder, rows=prompts()[:, 1:])


def test_engines_of_another_export_or_too_few_are_refused(folder):
    manifest = load_manifest(folder)
    plans = {name: HostPlan(folder, manifest.graphs[name], manifest.lengths) for name in (*STUDENT, *DECODER)}
    spec = plans["denoise"].spec
    plans["denoise"].spec = replace(spec, inputs=(replace(spec.inputs[0], shape=(9,)), *spec.inputs[1:]))
    with pytest.raises(ExportError, match="engine of 'denoise' was built from another graph"):
        PlanSet(manifest, plans, HostDevice())
    del plans["clean"]
    with pytest.raises(ExportError, match="no engine for the graph 'clean'"):
        PlanSet(manifest, plans | {"denoise": HostPlan(folder, spec, manifest.lengths)}, HostDevice())


def test_no_room_is_said_before_a_stream_begins(folder):
    with pytest.raises(DeviceError, match="no room"):
        engines(folder, HostDevice(room=10))


def test_without_tensorrt_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[tensorrt\]'") as raised:
        load_tensorrt()
    assert "\n" not in str(raised.value)


def test_without_a_gpu_a_line_names_the_other_backends():
    with pytest.raises(DeviceError, match=r"needs a CUDA device, got 'cpu'.*onnxruntime or torch"):
        CudaDevice(torch.device("cpu"))
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match=r"finds no NVIDIA GPU or driver.*onnxruntime or torch"):
        CudaDevice(torch.device("cuda"))
