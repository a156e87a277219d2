"""The student's graphs: golden rollouts, lengths, what the clean call leaves out, what a file holds."""

import onnx
import pytest
import torch

from pyrf.backends.onnxruntime.rollout import OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize, StreamConfig
from pyrf.export.exporter import export_student
from pyrf.export.graphs.nodes import DOMAIN, RING_ATTENTION
from pyrf.export.manifest import load_manifest
from pyrf.loop.sampler import ChunkLoop
from pyrf.models.dit.model import WanModel
from tests.support import golden, networks

CHUNKS, FRAMES, HEIGHT, WIDTH = 8, 3, 8, 12
SIZE = LatentSize(HEIGHT, WIDTH)


def opened(folder):
    prompt = golden.tensors("rollout_fp32")["prompt_embeds"]
    return OnnxRuntimeRollout(GraphSet(folder, load_manifest(folder), threads=1), 1, SIZE, prompt)


def roll_out(rollout):
    data = golden.tensors("rollout_fp32")
    draws = []
    for chunk in range(CHUNKS):
        draws += [data["noise"][:, chunk * FRAMES : (chunk + 1) * FRAMES]]
        draws += [x[None] for x in data["renoise"][chunk]]
    iterator = iter(draws)
    loop = ChunkLoop(rollout, golden.configs()[1], lambda: next(iterator))
    return torch.stack([loop.next_chunk()[0] for _ in range(CHUNKS)])


def test_golden_rollout(golden_export):
    latents = roll_out(opened(golden_export))
    expected = golden.tensors("rollout_fp32")["latents"]
    torch.testing.assert_close(latents, expected, atol=golden.TOLERANCE, rtol=0)


def test_what_lies_behind_the_length_has_no_effect(golden_export):
    rollout = opened(golden_export)
    for buffer in (*rollout.cache.keys, *rollout.cache.values):
        buffer.fill_(torch.nan)
    latents = roll_out(rollout)
    expected = golden.tensors("rollout_fp32")["latents"]
    torch.testing.assert_close(latents, expected, atol=golden.TOLERANCE, rtol=0)


def test_a_wrong_length_changes_the_flow(golden_export):
    """A runtime that ignores the length, or a caller that gives another, cannot go unnoticed."""
    flows = []
    for wrong in (False, True):
        rollout = opened(golden_export)
        rollout.begin_chunk()
        if wrong:
            rollout.cache.length *= 2
        flows.append(rollout.denoise(golden.tensors("rollout_fp32")["noise"][:, :FRAMES], 1000.0))
    assert (flows[0] - flows[1]).abs().max() > 0.01


def test_lengths_are_those_of_the_warm_up(golden_export):
    manifest = load_manifest(golden_export)
    tokens = FRAMES * HEIGHT // 2 * WIDTH // 2
    assert manifest.tokens == tokens
    assert manifest.lengths == (tokens, 2 * tokens, 3 * tokens)


def test_a_call_writes_its_slot_and_nothing_else(golden_export):
    rollout = opened(golden_export)
    generator = torch.Generator().manual_seed(0)
    for buffer in (*rollout.cache.keys, *rollout.cache.values):
        buffer.normal_(generator=generator)
    before = [x.clone() for x in (*rollout.cache.keys, *rollout.cache.values)]
    rollout.cache.chunk = 2  # the third of three slots
    rollout.begin_chunk()
    rollout.denoise(torch.ones(1, FRAMES, 16, HEIGHT, WIDTH), 1000.0)
    tokens = rollout.cache.tokens
    for old, new in zip(before, (*rollout.cache.keys, *rollout.cache.values)):
        torch.testing.assert_close(new[:, :, : 2 * tokens], old[:, :, : 2 * tokens], atol=0, rtol=0)
        assert not torch.equal(new[:, :, 2 * tokens :], old[:, :, 2 * tokens :])


def test_the_clean_call_leaves_out_what_its_keys_do_not_need(golden_export):
    manifest, last = load_manifest(golden_export), golden.configs()[0].num_layers - 1
    clean = onnx.load(golden_export / "clean.onnx", load_external_data=False)
    names = {name for node in clean.graph.node for name in node.input}
    for weight in ("self_attn.q", "self_attn.o", "cross_attn.q", "cross_attn.o", "ffn.0", "ffn.2"):
        assert f"blocks.{last}.{weight}.weight" not in names
        assert f"blocks.{last - 1}.{weight}.weight" in names
    assert f"blocks.{last}.self_attn.k.weight" in names
    assert not any(name.startswith("head.") for name in names)
    inputs = {spec.name for spec in manifest.graphs["clean"].inputs}
    assert f"cross_keys.{last}" not in inputs  # an input that nothing reads would be refused by an engine
    assert inputs <= names


@pytest.mark.parametrize("name", ["prompt", "time", "denoise", "clean"])
def test_a_file_is_valid_and_names_what_the_manifest_says(golden_export, name):
    path = golden_export / f"{name}.onnx"
    onnx.checker.check_model(path)
    model = onnx.load(path, load_external_data=False)
    spec = load_manifest(golden_export).graphs[name]
    assert [x.name for x in model.graph.input] == [x.name for x in spec.inputs]
    assert [x.name for x in model.graph.output] == [x.name for x in spec.outputs]
    layers = range(golden.configs()[0].num_layers if name in ("denoise", "clean") else 0)
    assert spec.aliases == {f"{x}_out.{i}": f"{x}.{i}" for x in ("keys", "values") for i in layers}
    for output, source in spec.aliases.items():
        shapes = {x.name: (x.shape, x.dtype) for x in (*spec.inputs, *spec.outputs)}
        assert shapes[output] == shapes[source]
    assert str(golden_export.parents[3]).encode() not in path.read_bytes()
    assert b".py" not in path.read_bytes()


def test_ring_attention_is_one_node_a_layer_with_its_meaning_in_the_file(golden_export):
    model = onnx.load(golden_export / "denoise.onnx", load_external_data=False)
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    assert [node.op_type for node in nodes] == [RING_ATTENTION] * golden.configs()[0].num_layers
    assert [(f.domain, f.name) for f in model.functions] == [(DOMAIN, RING_ATTENTION)]
    assert sum(node.op_type == "TensorScatter" for node in model.graph.node) == 2 * len(nodes)


def test_graphs_share_their_weights(golden_export):
    stored = (golden_export / "student.weights").stat().st_size
    parameters = sum(p.numel() for p in golden.model().parameters())
    assert 0.8 * 4 * parameters < stored < 1.05 * 4 * parameters


def test_a_new_network_exports_and_computes_as_torch(tmp_path):
    """Its biases are all zero, and the exporter makes equal constants one."""
    torch.manual_seed(0)
    model = WanModel(networks.MODEL).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.endswith("bias"):
            parameter.data.normal_(std=0.1)
    stream = StreamConfig()
    manifest = export_student(model, stream, tmp_path / "new", LatentSize(HEIGHT, WIDTH))
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(1, networks.MODEL.text_len, networks.MODEL.text_dim, generator=generator)
    latents = []
    for rollout in (
        TorchRollout(model, stream, 1, SIZE, prompt),
        OnnxRuntimeRollout(GraphSet(tmp_path / "new", manifest, threads=1), 1, SIZE, prompt),
    ):
        loop = rollout.loop([0])
        latents.append(torch.cat([loop.next_chunk() for _ in range(2)], 1))
    assert latents[0].abs().max() > 0.1
    torch.testing.assert_close(latents[1], latents[0], atol=golden.TOLERANCE, rtol=0)
