"""Exports in half precision and float8: near float32 by as much as rounding explains, and no nearer."""

from pathlib import Path

import onnx
import pytest
import torch

from pyrf.backends.onnxruntime.backend import OnnxRuntimeRollout
from pyrf.backends.onnxruntime.parity import check_parity
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.export.graphs.fp8 import calibrate
from pyrf.export.graphs.widen import widen
from pyrf.export.manifest import load_manifest
from pyrf.loop.sampler import ChunkLoop, SeededNoise
from tests.support import networks

CHUNKS = networks.STREAM.slots + 1


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("float16", 5e-3), ("fp8", 0.3)])
def test_parity(bundle, exports, dtype, most):
    parity = check_parity(bundle, exports(dtype), CHUNKS)
    assert parity.relative_error < most
    assert parity.widened == (dtype == "fp8")
    assert parity.psnr > (60 if dtype == "float32" else 20)
    assert dtype == "float32" or parity.relative_error > 1e-5


def roll_out(backend):
    generator = torch.Generator().manual_seed(0)
    manifest_size = (4, 6)
    backend.start(1, *manifest_size)
    backend.set_prompt(torch.randn(1, networks.MODEL.text_len, networks.MODEL.text_dim, generator=generator))
    shape = (networks.STREAM.chunk_frames, networks.MODEL.in_channels, *manifest_size)
    loop = ChunkLoop(backend, networks.STREAM, SeededNoise([0], shape))
    return torch.cat([loop.next_chunk() for _ in range(CHUNKS)])


def test_a_widened_graph_is_torch_with_rounded_weights(bundle, bfloat16_student, tmp_path):
    """Of bfloat16 only the rounding of weights is left, so the structure is checked to float32."""
    manifest = widen(bfloat16_student, tmp_path)
    found = roll_out(OnnxRuntimeRollout(GraphSet(tmp_path, manifest, threads=1)))
    expected = roll_out(TorchRollout(bundle.transformer(torch.bfloat16).float(), networks.STREAM))
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)
    assert b"bfloat16" not in (tmp_path / "manifest.json").read_bytes()


def dtypes(folder: Path, name: str) -> set[int]:
    model = onnx.load(folder / f"{name}.onnx", load_external_data=False)
    return {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", onnx.TensorProto.FLOAT16), ("bfloat16", onnx.TensorProto.BFLOAT16)]
)
def test_no_weight_is_left_in_float32(exports, bfloat16_student, dtype, kind):
    folder = bfloat16_student if dtype == "bfloat16" else exports(dtype)
    for name, spec in load_manifest(folder).graphs.items():
        model = onnx.load(folder / spec.file, load_external_data=False)
        big = [
            t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1
        ]
        assert not big, name
    assert kind in dtypes(folder, "denoise")
    specs = {spec.name: spec.dtype for spec in load_manifest(folder).graphs["denoise"].inputs}
    assert {specs["keys.0"], specs["cross_values.1"], specs["modulation"]} == {dtype}
    assert {specs["latents"], specs["rope"]} == {"float32"}


def test_float8_has_every_product_of_the_blocks(exports):
    folder = exports("fp8")
    model = onnx.load(folder / "denoise.onnx", load_external_data=False)
    made_by = {name: node for node in model.graph.node for name in node.output}
    products = [
        [made_by[name].op_type for name in node.input if name in made_by]
        for node in model.graph.node
        if node.op_type == "Gemm" and any(name.startswith("blocks.") for name in node.input)
    ]
    # q, k, v and o, the cross-attention's q and o, and two of the feed-forward in each layer
    assert products == [["DequantizeLinear"] * 2] * 8 * networks.MODEL.num_layers
    stored = {t.name: t.data_type for t in model.graph.initializer if t.name.endswith(".weight.fp8")}
    assert len(stored) == len(products)
    assert set(stored.values()) == {onnx.TensorProto.FLOAT8E4M3FN}
    assert not any(t.name.endswith("ffn.0.weight") for t in model.graph.initializer)
    manifest = load_manifest(folder)
    assert manifest.fp8
    assert manifest.dtype == "bfloat16"


def test_calibration_covers_every_call_of_a_rollout(bundle):
    model = bundle.transformer()
    embeds = bundle.text_encoder().encode(["a red circle"])
    seen: list[float] = []
    model.blocks[1].ffn[2].register_forward_pre_hook(lambda _, x: seen.append(float(x[0].abs().max())))
    largest = calibrate(model, networks.STREAM, [embeds], 4, 6)
    calls = len(networks.STREAM.denoising_steps) * (networks.STREAM.slots + 1)  # clean calls stop before it
    assert len(seen) == calls
    assert largest["blocks.1.ffn.2"] == max(seen)
    assert not any(name.endswith(("cross_attn.k", "cross_attn.v")) for name in largest)
