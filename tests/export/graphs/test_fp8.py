"""Float8 products: where they stand in the graph, and what their scales come from."""

import onnx

from pyrf.config import LatentSize
from pyrf.export.graphs.fp8 import fp8_inputs
from pyrf.export.manifest import load_manifest
from tests.support import exports


def test_float8_has_every_product_of_the_blocks():
    folder = exports.exported("fp8")
    model = onnx.load(folder / "denoise.onnx", load_external_data=False)
    made_by = {name: node for node in model.graph.node for name in node.output}
    products = [
        [made_by[name].op_type for name in node.input if name in made_by]
        for node in model.graph.node
        if node.op_type == "Gemm" and any(name.startswith("blocks.") for name in node.input)
    ]
    # q, k, v and o, the cross-attention's q and o, and two of the feed-forward in each layer
    assert products == [["DequantizeLinear"] * 2] * 8 * exports.MODEL.num_layers
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
    largest = fp8_inputs(model, exports.STREAM, [embeds], LatentSize(4, 6))
    calls = len(exports.STREAM.denoising_steps) * (exports.STREAM.slots + 1)  # clean calls stop before it
    assert len(seen) == calls
    assert largest["blocks.1.ffn.2"] == max(seen)
    assert not any(name.endswith(("cross_attn.k", "cross_attn.v")) for name in largest)
