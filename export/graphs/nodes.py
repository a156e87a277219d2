"""The nodes that a student's graph has beside the exporter's own: ring attention and the cache's update.

Ring attention is one node of pyrf's own domain. Its meaning is a model-local function of the same name in
the same file, so every runtime can run it, and one that knows the node may put its own kernel there.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from onnx import helper
from torch import Tensor

OPSET = 24
DOMAIN = "pyrf"
DOMAIN_VERSION = 1
RING_ATTENTION = "RingAttention"


def ring_attention_node(q: Tensor, keys: Tensor, values: Tensor, length: Tensor) -> Tensor:
    """`pyrf.ops.ring_attention` as a node of `DOMAIN`.

    Args:
        q: [1, heads, N, head_dim], rotated.
        keys, values: [1, heads, slots * N, head_dim].
        length: [1] int64, valid tokens.

    Returns:
        [1, N, heads * head_dim].
    """
    batch, heads, tokens, head_dim = q.shape
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{RING_ATTENTION}",
        (q, keys, values, length),
        dtype=q.dtype,
        shape=(batch, tokens, heads * head_dim),
        version=DOMAIN_VERSION,
    )


def write_slot_node(buffer: Tensor, x: Tensor, position: Tensor) -> Tensor:
    """ONNX `TensorScatter`: the buffer with x written at a token, for the runtime to do in place.

    Args:
        buffer: [1, heads, slots * N, head_dim].
        x: [1, heads, N, head_dim].
        position: [1] int64, the first token to overwrite.

    Returns:
        The buffer's successor, which is to have its address.
    """
    return torch.onnx.ops.symbolic(
        "TensorScatter",
        (buffer, x, position),
        {"axis": 2, "mode": "linear"},
        dtype=buffer.dtype,
        shape=buffer.shape,
        version=OPSET,
    )


def ring_attention_function() -> ir.Function:
    """The meaning of `ring_attention_node`, to be put into every model that has the node.

    Keys behind `length` are cut off, not masked, so what lies there can have no effect.
    """
    node = helper.make_node
    body = [
        node("Constant", [], ["first"], value_ints=[0]),
        node("Constant", [], ["axis"], value_ints=[2]),
        node("Slice", ["keys", "first", "length", "axis"], ["valid_keys"]),
        node("Slice", ["values", "first", "length", "axis"], ["valid_values"]),
        node("Attention", ["q", "valid_keys", "valid_values"], ["mixed"]),
        node("Transpose", ["mixed"], ["by_token"], perm=[0, 2, 1, 3]),
        node("Constant", [], ["shape"], value_ints=[0, 0, -1]),
        node("Reshape", ["by_token", "shape"], ["out"]),
    ]
    proto = helper.make_function(
        DOMAIN,
        RING_ATTENTION,
        ["q", "keys", "values", "length"],
        ["out"],
        body,
        [helper.make_opsetid("", OPSET)],
    )
    return ir.serde.deserialize_function(proto)
