"""Attention over a cache in e4m3 inside TensorRT's engines, in a form that TensorRT fuses.

The meaning that a graph has of it rounds the softmax's weights, which takes nodes of its own: TensorRT would
write all scores to memory. What stands here is `Attention` of the widened cache, as torch's `sdpa` has it.
"""

from __future__ import annotations

from pathlib import Path

from pyrf.export.graphs.e4m3 import RING_ATTENTION_E4M3, fused_e4m3_function


def fuse_attention(path: Path) -> bytes:
    """A graph whose attention over a cache in e4m3 means one that TensorRT fuses.

    Args:
        path: the .onnx file; its weights stay outside.
    """
    import onnx
    from onnx.inliner import inline_local_functions

    model = onnx.load(path, load_external_data=False)
    dtype = next(x.type.tensor_type.elem_type for x in model.graph.input if x.name == "modulation")
    kept = [function for function in model.functions if function.name != RING_ATTENTION_E4M3]
    del model.functions[:]
    model.functions.extend([*kept, fused_e4m3_function(dtype)])
    # TensorRT names a layer that quantises by its node, and would meet a function's nodes once per layer.
    return bytes(inline_local_functions(model).SerializeToString())
