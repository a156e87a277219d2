"""Exports in half precision: every weight is, and a bfloat16 export in float32 is the same graphs."""

from pathlib import Path

import onnx
import pytest
import torch

from pyrf.backends.onnxruntime.rollout import OnnxRuntimeRollout
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize
from pyrf.export.graphs.widen import widen
from pyrf.export.manifest import load_manifest
from tests.support import exports

CHUNKS = exports.STREAM.slots + 1


def roll_out(rollout):
    loop = rollout.loop([0])
    return torch.cat([loop.next_chunk() for _ in range(CHUNKS)])


def test_a_widened_graph_is_torch_with_rounded_weights(bundle, tmp_path):
    """Of bfloat16 only the rounding of weights is left, so the structure is checked to float32."""
    manifest = widen(exports.exported("bfloat16"), tmp_path)
    generator, size = torch.Generator().manual_seed(0), LatentSize(4, 6)
    prompt = torch.randn(1, exports.MODEL.text_len, exports.MODEL.text_dim, generator=generator)
    graphs = GraphSet(tmp_path, manifest, threads=1)
    found = roll_out(OnnxRuntimeRollout(graphs, 1, size, prompt))
    model = bundle.transformer(torch.bfloat16).float()
    expected = roll_out(TorchRollout(model, exports.STREAM, 1, size, prompt))
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)
    assert b"bfloat16" not in (tmp_path / "manifest.json").read_bytes()


def dtypes(folder: Path, name: str) -> set[int]:
    model = onnx.load(folder / f"{name}.onnx", load_external_data=False)
    return {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", onnx.TensorProto.FLOAT16), ("bfloat16", onnx.TensorProto.BFLOAT16)]
)
def test_no_weight_is_left_in_float32(dtype, kind):
    folder = exports.exported(dtype)
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
