"""Attention over a cache in e4m3 as a node: it takes the chunk's own entries beside the cache.

A runtime updates a cache of e4m3 in place nowhere: ONNX Runtime has no `TensorScatter` of it, and TensorRT's
cache layer takes 16 bits or more. So the graph reads the cache, hands out the chunk's entries, and whoever
runs it writes them into their slot.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from onnx import FunctionProto, NodeProto, TensorProto, helper
from torch import Tensor

from pyrf.export.graphs.nodes import DOMAIN, DOMAIN_VERSION, OPSET
from pyrf.ops.e4m3 import E4M3, WEIGHT_SCALE

RING_ATTENTION_E4M3 = "RingAttentionE4M3"
_INPUTS = ["q", "keys", "values", "new_keys", "new_values", "position", "length"]


def e4m3_node(x: Tensor) -> Tensor:
    """`pyrf.ops.e4m3.to_e4m3` of float32 as ONNX `QuantizeLinear` of scale 1, which every runtime has."""
    return torch.onnx.ops.symbolic(
        "QuantizeLinear",
        (x, torch.ones((), dtype=x.dtype, device="cpu")),
        {"output_dtype": int(ir.DataType.FLOAT8E4M3FN)},
        dtype=E4M3,
        shape=x.shape,
        version=OPSET,
    )


def ring_attention_e4m3_node(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    new_keys: Tensor,
    new_values: Tensor,
    position: Tensor,
    length: Tensor,
) -> Tensor:
    """Attention to a cache as it will be once the chunk's entries stand in it, as a node of `DOMAIN`.

    Args:
        q: [1, heads, N, head_dim], rotated.
        keys, values: [1, heads, slots * N, head_dim] e4m3.
        new_keys, new_values: [1, heads, N, head_dim] e4m3.
        position: [1] int64, the first token that they stand in for.
        length: [1] int64, valid tokens.

    Returns:
        [1, N, heads * head_dim] in q's dtype.
    """
    batch, heads, tokens, head_dim = q.shape
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{RING_ATTENTION_E4M3}",
        (q, keys, values, new_keys, new_values, position, length),
        dtype=q.dtype,
        shape=(batch, tokens, heads * head_dim),
        version=DOMAIN_VERSION,
    )


def ring_attention_e4m3_function() -> ir.Function:
    """The meaning of `ring_attention_e4m3_node`: `pyrf.ops.e4m3.attend`, in float32."""
    return ir.serde.deserialize_function(_function([*_seen(TensorProto.FLOAT), *_rounding_attention()]))


def fused_e4m3_function(dtype: int) -> FunctionProto:
    """A nearby meaning for a runtime that fuses `Attention`: the softmax's weights are not rounded.

    This is what the way `sdpa` of `pyrf.ops.ring_attention` computes.

    Args:
        dtype: ONNX's number of q's dtype, in which the products are formed.
    """
    return _function([*_seen(dtype), _node("Attention", "wide_q seen_keys seen_values", "mixed")])


def _function(body: list[NodeProto]) -> FunctionProto:
    end = [
        _node("Transpose", "mixed", "by_token", perm=[0, 2, 1, 3]),
        _node("Constant", "", "shape", value_ints=[0, 0, -1]),
        _node("Reshape", "by_token shape", "wide_out"),
        _node("CastLike", "wide_out q", "out"),
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, RING_ATTENTION_E4M3, _INPUTS, ["out"], [*body, *end], opsets)


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def _to_e4m3(x: str, output: str) -> NodeProto:
    return _node("QuantizeLinear", f"{x} one", output, output_dtype=TensorProto.FLOAT8E4M3FN)


def _seen(dtype: int) -> list[NodeProto]:
    """q rounded, and the keys and values that are valid, in a wider dtype.

    What lies behind `length` is not masked but left out, so it can have no effect.
    """
    one = helper.make_tensor("one", dtype, [], [1.0])
    nodes = [
        _node("Constant", "", "one", value=one),
        _node("Cast", "q", "cast_q", to=dtype),
        _to_e4m3("cast_q", "narrow_q"),
        _node("DequantizeLinear", "narrow_q one", "wide_q"),
        # Of a token of this chunk its place behind the cache, of any other its own.
        _node("Constant", "", "first", value_int=0),
        _node("Constant", "", "step", value_int=1),
        _node("Constant", "", "axes", value_ints=[0]),
        _node("Squeeze", "length axes", "stop"),
        _node("Range", "first stop step", "tokens"),
        _node("Shape", "keys", "capacity", start=2, end=3),
        _node("Shape", "new_keys", "chunk", start=2, end=3),
        _node("Sub", "tokens position", "offset"),
        _node("GreaterOrEqual", "offset first", "not_before"),
        _node("Less", "offset chunk", "not_behind"),
        _node("And", "not_before not_behind", "is_new"),
        _node("Add", "offset capacity", "behind"),
        _node("Where", "is_new behind tokens", "places"),
    ]
    for name in ("keys", "values"):
        nodes += [
            _node("DequantizeLinear", f"{name} one", f"wide_{name}"),
            _node("DequantizeLinear", f"new_{name} one", f"wide_new_{name}"),
            _node("Concat", f"wide_{name} wide_new_{name}", f"all_{name}", axis=2),
            _node("Gather", f"all_{name} places", f"seen_{name}", axis=2),
        ]
    return nodes


def _rounding_attention() -> list[NodeProto]:
    """Attention in float32 whose weights, scaled by 256, are rounded to e4m3; they are summed unrounded."""
    return [
        _node("Shape", "q", "head_dim", start=3, end=4),
        _node("Cast", "head_dim", "channels", to=TensorProto.DOUBLE),
        _node("Sqrt", "channels", "divisor"),
        _node("Reciprocal", "divisor", "wide_scale"),
        _node("Cast", "wide_scale", "scale", to=TensorProto.FLOAT),
        _node("Constant", "", "last", value_ints=[-1]),
        _node("Constant", "", "weight_scale", value_float=WEIGHT_SCALE),
        _node("Transpose", "seen_keys", "turned_keys", perm=[0, 1, 3, 2]),
        _node("MatMul", "wide_q turned_keys", "products"),
        _node("Mul", "products scale", "scores"),
        _node("ReduceMax", "scores last", "largest"),
        _node("Sub", "scores largest", "below"),
        _node("Exp", "below", "weights"),
        _node("ReduceSum", "weights last", "sum"),
        _node("Mul", "sum weight_scale", "total"),
        _node("Mul", "weights weight_scale", "scaled_weights"),
        _to_e4m3("scaled_weights", "narrow_weights"),
        _node("DequantizeLinear", "narrow_weights one", "rounded_weights"),
        _node("MatMul", "rounded_weights seen_values", "weighted"),
        _node("Div", "weighted total", "mixed"),
    ]
