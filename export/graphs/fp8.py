"""Float8 matrix products for the blocks' linears: quantise and dequantise nodes, scales from rollouts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from pyrf.config import LatentSize, StreamConfig
from pyrf.export.graphs.trace import TracedGraph
from pyrf.loop.inference import unmixed
from pyrf.loop.sampler import SeededNoise
from pyrf.models.dit.calibration import largest_inputs
from pyrf.models.dit.model import WanModel
from pyrf.models.dit.rollout import ModelRollout

LARGEST = 448.0
"""The largest value of float8 e4m3."""
_LINEAR = re.compile(r"(blocks\.\d+\.(?:self_attn|cross_attn|ffn)\.\w+)\.weight")


def fp8_inputs(
    model: WanModel, stream: StreamConfig, prompts: Sequence[Tensor], size: LatentSize
) -> dict[str, float]:
    """The largest magnitude that enters each linear of the blocks, over rollouts past the first eviction.

    Args:
        model: the student.
        stream: how it streams.
        prompts: prompt_embeds [1, text_len, text_dim], one per rollout.
        size: of the latents.

    Returns:
        See `largest_inputs`.
    """
    shape = (stream.chunk_frames, model.config.in_channels, *size)

    @torch.no_grad()
    @unmixed()
    def roll_out() -> None:
        for seed, prompt_embeds in enumerate(prompts):
            rollout = ModelRollout(model, stream, model.encode_prompt(prompt_embeds.to(model.device)), size)
            draw, last = SeededNoise([seed], shape, model.device), len(stream.denoising_steps) - 1
            for _ in range(stream.slots + 1):
                rollout.next_chunk(draw, last)

    return largest_inputs(model, roll_out)


def quantise(graph: TracedGraph, largest: Mapping[str, float]) -> None:
    """Put quantise and dequantise nodes before the products of the blocks' linears, weights stored in float8.

    One scale a tensor. Linears that share an input share its nodes.

    Args:
        graph: changed in place.
        largest: from `fp8_inputs`.
    """
    activations: dict[str, ir.Value] = {}
    for node in list(graph.model.graph):
        weight = node.inputs[1] if node.op_type == "Gemm" else None
        match = _LINEAR.fullmatch(weight.name or "") if weight is not None else None
        if match is None or weight is None:
            continue
        x = node.inputs[0]
        assert x is not None
        assert x.name is not None
        if x.name not in activations:
            activations[x.name] = _quantised_input(graph.model.graph, node, x, largest[match[1]])
        node.replace_input_with(0, activations[x.name])
        node.replace_input_with(1, _quantised_weight(graph.model.graph, node, weight))


def _scale(graph: ir.Graph, name: str, largest: float, dtype: ir.DataType) -> ir.Value:
    array = np.asarray(max(largest, 1e-12) / LARGEST, dtype=np.float32).astype(dtype.numpy())
    return _initializer(graph, name, array)


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.initializers[name] = value
    return value


def _quantised_input(graph: ir.Graph, before: ir.Node, x: ir.Value, largest: float) -> ir.Value:
    assert x.dtype is not None
    scale = _scale(graph, f"{x.name}.scale", largest, x.dtype)
    down = ir.node("QuantizeLinear", [x, scale], {"output_dtype": int(ir.DataType.FLOAT8E4M3FN)})
    up = ir.node("DequantizeLinear", [down.outputs[0], scale])
    _describe(down, f"{x.name}.fp8", ir.DataType.FLOAT8E4M3FN, x.shape)
    _describe(up, f"{x.name}.dequantised", x.dtype, x.shape)
    graph.insert_before(before, [down, up])
    return up.outputs[0]


def _quantised_weight(graph: ir.Graph, before: ir.Node, weight: ir.Value) -> ir.Value:
    assert weight.const_value is not None
    assert weight.dtype is not None
    assert weight.name is not None
    values = torch.from_numpy(weight.const_value.numpy().astype(np.float32))
    scale = _scale(graph, f"{weight.name}.scale", float(values.abs().max()), weight.dtype)
    assert scale.const_value is not None
    divisor = float(scale.const_value.numpy().astype(np.float32))
    narrow = (values / divisor).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    array = narrow.view(torch.uint8).numpy().view(ir.DataType.FLOAT8E4M3FN.numpy())
    stored = _initializer(graph, f"{weight.name}.fp8", array)
    up = ir.node("DequantizeLinear", [stored, scale])
    _describe(up, f"{weight.name}.dequantised", weight.dtype, weight.shape)
    graph.insert_before(before, [up])
    del graph.initializers[weight.name]
    return up.outputs[0]


def _describe(node: ir.Node, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> None:
    value = node.outputs[0]
    value.name, value.dtype, value.shape = name, dtype, shape
