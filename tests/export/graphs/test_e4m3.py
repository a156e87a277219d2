"""Graphs of a cache in e4m3: the node's two meanings, rollouts beside torch's, and what a file holds."""

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from pyrf.backends.onnxruntime.rollout import OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize
from pyrf.export.graphs.e4m3 import RING_ATTENTION_E4M3, fused_e4m3_function, ring_attention_e4m3_function
from pyrf.export.graphs.nodes import DOMAIN, OPSET
from pyrf.export.graphs.widen import widen
from pyrf.export.manifest import load_manifest
from pyrf.ops.e4m3 import E4M3, attend, to_e4m3, widened
from tests.support import exports

FP8 = "fp8-attention"
SIZE = LatentSize(4, 6)
HEADS, CHUNK, SLOTS, HEAD_DIM = 2, 5, 3, 48
CAPACITY = SLOTS * CHUNK
NUMBERS = {torch.float32: 1, torch.int64: 7, E4M3: 17}


def run(function, slot, length):
    """The node on random numbers, some beyond what e4m3 holds; returns what it gave, and its arguments."""
    generator = torch.Generator().manual_seed(slot)

    def random(tokens):
        return 3 * torch.randn(1, HEADS, tokens, HEAD_DIM, generator=generator)

    cache, entries = ([to_e4m3(random(tokens)) for _ in "kv"] for tokens in (CAPACITY, CHUNK))
    q = random(CHUNK)
    q[0, 0, 0, 0] = 1000.0
    numbers = torch.tensor([slot * CHUNK]), torch.tensor([length])
    arguments = dict(zip(function.input, (q, *cache, *entries, *numbers)))
    out = torch.zeros(1, CHUNK, HEADS * HEAD_DIM)
    node = helper.make_node(RING_ATTENTION_E4M3, list(arguments), ["out"], domain=DOMAIN)
    specs = [
        helper.make_tensor_value_info(name, NUMBERS[x.dtype], x.shape)
        for name, x in (*arguments.items(), ("out", out))
    ]
    graph = helper.make_graph([node], "node", specs[:-1], specs[-1:])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=11)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    io = session.io_binding()
    for name, x in arguments.items():
        io.bind_input(name, "cpu", 0, NUMBERS[x.dtype], list(x.shape), x.data_ptr())
    io.bind_output("out", "cpu", 0, TensorProto.FLOAT, list(out.shape), out.data_ptr())
    session.run_with_iobinding(io)
    for buffer, new in zip(cache, entries):  # as the cache will be
        buffer[:, :, slot * CHUNK : (slot + 1) * CHUNK] = new
    return out, (q, *cache, length)


def meaning():
    return ir.serde.serialize_function(ring_attention_e4m3_function())


@pytest.mark.parametrize(("slot", "slots"), [(0, 1), (1, 2), (1, 3), (2, 3)])
def test_the_node_is_attention_over_the_cache_as_it_will_be(slot, slots):
    found, arguments = run(meaning(), slot, slots * CHUNK)
    torch.testing.assert_close(found, attend(*arguments).transpose(1, 2).flatten(2), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("slot", "slots"), [(0, 1), (1, 3)])
def test_for_tensorrt_it_is_torchs_way_that_keeps_the_weights(slot, slots):
    found, arguments = run(fused_e4m3_function(TensorProto.FLOAT), slot, slots * CHUNK)
    expected = F.scaled_dot_product_attention(*widened(*arguments)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(found, attend(*arguments).transpose(1, 2).flatten(2), atol=1e-3)


def prompts(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, exports.MODEL.text_len, exports.MODEL.text_dim, generator=generator)


def graphs(folder):
    return OnnxRuntimeRollout(GraphSet(folder, load_manifest(folder), threads=1), 1, SIZE, prompts(0))


def torchs(cache_dtype=E4M3, weights=torch.float32):
    model = exports.bundle().transformer(weights).float()
    return TorchRollout(model, exports.STREAM, 1, SIZE, prompts(0), cache_dtype)


def far(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def buffers(cache):
    return [*cache.keys, *cache.values, *cache.key_masters, *cache.value_masters]


def bytes_of(cache):
    """Of the slots, and of what is kept beside the sink."""
    masters = (*(cache.key_masters or ()), *(cache.value_masters or ()))
    return sum(x.nbytes for x in (*cache.keys, *cache.values)), sum(x.nbytes for x in masters)


def same_bytes(found, expected):
    """The share of a cache's numbers in e4m3 that are equal."""
    pairs = zip((*found.keys, *found.values), (*expected.keys, *expected.values))
    equal = [(one.view(torch.uint8) == other.view(torch.uint8)).float().mean() for one, other in pairs]
    return float(torch.stack(equal).mean())


def equalise(found, expected):
    """Copy a cache that is nearly there already."""
    assert same_bytes(found, expected) > 0.98
    for one, other in zip(buffers(found), buffers(expected)):
        assert one.dtype == other.dtype
        one.copy_(other)


@pytest.mark.parametrize("recache", [False, True])
def test_past_evictions_and_a_prompt_switch_a_chunk_is_torchs(recache):
    """A last bit may decide between two numbers in e4m3, which spreads: each chunk begins with one cache."""
    rollouts = graphs(exports.exported("float32", FP8)), torchs(), torchs(None)
    loops = [rollout.loop([0]) for rollout in rollouts]
    caches = [rollout.cache for rollout in rollouts[:2]]
    for chunk in range(exports.STREAM.slots + 3):
        if chunk in (2, 5):
            for rollout in rollouts:
                rollout.set_prompt(prompts(chunk), recache=recache)
            equalise(*caches)
        found, expected, plain = (loop.next_chunk() for loop in loops)
        assert far(found, expected) < 1e-3
        assert far(found, plain) > 1.5e-3
        equalise(*caches)
    assert caches[0].keys[0].dtype == E4M3
    assert caches[0].key_masters[0].dtype == torch.float32


def test_of_bfloat16_only_the_rounding_of_weights_is_left_when_it_is_widened(tmp_path):
    widen(exports.exported("bfloat16", FP8), tmp_path)
    found, expected = (
        rollout.loop([0]).next_chunk() for rollout in (graphs(tmp_path), torchs(weights=torch.bfloat16))
    )
    assert far(found, expected) < 2e-3


def test_a_denoise_call_leaves_the_cache_alone_and_the_clean_call_writes_its_slot():
    rollout = graphs(exports.exported("float32", FP8))
    rollout.loop([0]).next_chunk()
    buffers = [*rollout.cache.keys, *rollout.cache.values]
    before = [x.float() for x in buffers]
    rollout.begin_chunk()
    latents, tokens = torch.ones(1, *rollout.shape), rollout.cache.tokens
    rollout.denoise(latents, 1000.0)
    assert all(torch.equal(x.float(), old) for x, old in zip(buffers, before))
    rollout.clean(latents)
    for x, old in zip(buffers, before):
        assert torch.equal(x.float()[:, :, :tokens], old[:, :, :tokens])
        assert x.float()[:, :, tokens : 2 * tokens].abs().max() > 0
        assert torch.equal(x.float()[:, :, 2 * tokens :], old[:, :, 2 * tokens :])


def test_what_lies_behind_the_length_has_no_effect():
    rollouts = [graphs(exports.exported("float32", FP8)) for _ in range(2)]
    for buffer in (*rollouts[1].cache.keys, *rollouts[1].cache.values):
        buffer.view(torch.uint8).fill_(0x7F)  # NaN
    loops = [rollout.loop([0]) for rollout in rollouts]
    for _ in range(exports.STREAM.slots + 1):
        assert torch.equal(*(loop.next_chunk() for loop in loops))


def test_the_cache_takes_a_byte_a_number_and_its_sink_a_float32():
    folders = exports.exported("float32", FP8), exports.exported("float32")
    narrow, plain = (bytes_of(graphs(folder).cache) for folder in folders)
    assert plain == (4 * narrow[0], 0)
    assert narrow[1] == 4 * narrow[0] // exports.STREAM.slots


@pytest.mark.parametrize("name", ["denoise", "clean"])
def test_a_file_is_valid_and_has_the_nodes_meaning(name):
    folder = exports.exported("float32", FP8)
    onnx.checker.check_model(folder / f"{name}.onnx")
    model = onnx.load(folder / f"{name}.onnx", load_external_data=False)
    manifest, layers = load_manifest(folder), exports.MODEL.num_layers
    spec = manifest.graphs[name]
    assert [x.name for x in model.graph.input] == [x.name for x in spec.inputs]
    assert [x.name for x in model.graph.output] == [x.name for x in spec.outputs]
    nodes = [node.op_type for node in model.graph.node if node.domain == DOMAIN]
    assert nodes == [RING_ATTENTION_E4M3] * {"denoise": layers, "clean": layers - 1}[name]
    assert [function.name for function in model.functions] == [RING_ATTENTION_E4M3]
    assert not spec.aliases
    entries = [x for x in spec.outputs if x.name != "flow"]
    assert len(entries) == {"denoise": 0, "clean": 2 * layers}[name]
    assert {(x.dtype, x.shape[2]) for x in entries} <= {("float8_e4m3fn", manifest.tokens)}
