"""From a module to an ONNX graph with the manifest's names, and its weights in a file beside it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from pyrf.export.graphs.e4m3 import RING_ATTENTION_E4M3, ring_attention_e4m3_function
from pyrf.export.graphs.nodes import DOMAIN, OPSET, RING_ATTENTION, ring_attention_function
from pyrf.export.manifest import GraphSpec, TensorSpec
from pyrf.loop.inference import unmixed

INLINE_BYTES = 1024
"""Tensors up to this size stay inside the .onnx file."""

Arguments = Mapping[str, Tensor | list[Tensor]]
"""Example inputs by name; a list stands for `name.0`, `name.1`, ..."""


@dataclass
class TracedGraph:
    """A graph in memory.

    Attributes:
        model: its weights are still torch's, not copied.
        aliases: see `GraphSpec`.
    """

    model: ir.Model
    aliases: dict[str, str]


FUNCTIONS = {RING_ATTENTION: ring_attention_function, RING_ATTENTION_E4M3: ring_attention_e4m3_function}
"""The meanings of the nodes of pyrf's own domain."""


def trace(
    module: nn.Module,
    arguments: Arguments,
    outputs: Sequence[str],
    aliases: Mapping[str, str] | None = None,
) -> TracedGraph:
    """Export a module.

    Args:
        module: its `forward` takes the arguments in this order.
        arguments: tensors of the shapes and dtypes to trace with.
        outputs: flat names of what it returns; a last name `x.*` stands for all that are left.
        aliases: see `GraphSpec`; None: none.
    """
    inputs = _flat_names(arguments)
    with torch.device("cpu"), torch.no_grad(), unmixed(), _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(arguments.values()),
            input_names=inputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model
    _strip_notes(model)
    _name_weights(model.graph)
    for kind in {node.op_type for node in model.graph} & set(FUNCTIONS):
        model.functions[(DOMAIN, kind, "")] = FUNCTIONS[kind]()
    names = list(outputs)
    if names[-1].endswith(".*"):
        stem = names.pop().removesuffix("*")
        names += [f"{stem}{i}" for i in range(len(model.graph.outputs) - len(names))]
    for name, value in zip(names, model.graph.outputs, strict=True):
        value.name = name
    return TracedGraph(model, dict(aliases or {}))


def _flat_names(arguments: Arguments) -> list[str]:
    names = []
    for name, value in arguments.items():
        names += [name] if isinstance(value, Tensor) else [f"{name}.{i}" for i in range(len(value))]
    return names


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about optional packages off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def _strip_notes(model: ir.Model) -> None:
    """Remove what the exporter noted of source files and stack traces: it doubles a file and names paths."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _name_weights(graph: ir.Graph) -> None:
    """Give every weight its parameter's name.

    A linear of rows [N, D] is a Gemm and keeps its weight. One of more axes is a MatMul, whose weight is
    stored transposed; its name ends in `.T`. The exporter leaves it without one, as a product of constant
    folding, so it is known by the bias that is added next. Equal biases, as of a new network, are one; then
    only the first weight gets a name.
    """
    prefix = "model."
    for node in list(graph):
        if node.op_type != "MatMul" or not (weight := node.inputs[1]) or not weight.is_initializer():
            continue
        for user in node.outputs[0].consumers():
            bias = next((v for v in user.inputs if v is not None and v.is_initializer()), None)
            if user.op_type == "Add" and bias is not None and (bias.name or "").endswith(".bias"):
                name = f"{(bias.name or '').removesuffix('.bias')}.weight.T"
                if name not in graph.initializers:
                    weight.name = name
    for value in list(graph.initializers.values()):
        if value.name and value.name.startswith(prefix):
            value.name = value.name.removeprefix(prefix)


def without_outputs(graph: TracedGraph, names: Sequence[str]) -> TracedGraph:
    """A graph with some outputs left out, and with them every node and input that only they needed."""
    model = graph.model.clone()
    for value in [value for value in model.graph.outputs if value.name in names]:
        model.graph.outputs.remove(value)
    RemoveUnusedNodesPass()(model)
    for value in [value for value in model.graph.inputs if not value.uses()]:
        model.graph.inputs.remove(value)
    return TracedGraph(model, graph.aliases)


def graph_spec(file: str, graph: TracedGraph) -> GraphSpec:
    """Names, dtypes and shapes of a graph's inputs and outputs."""
    return GraphSpec(
        file,
        tuple(_tensor_spec(value) for value in graph.model.graph.inputs),
        tuple(_tensor_spec(value) for value in graph.model.graph.outputs),
        graph.aliases,
    )


_DTYPES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.INT64: "int64",
    ir.DataType.BOOL: "bool",
    ir.DataType.UINT8: "uint8",
    ir.DataType.FLOAT8E4M3FN: "float8_e4m3fn",
}


def _tensor_spec(value: ir.Value) -> TensorSpec:
    assert value.name is not None
    assert value.shape is not None
    assert value.dtype is not None
    return TensorSpec(value.name, _DTYPES[value.dtype], tuple(value.shape.numpy()))


def write_graphs(folder: Path, graphs: Mapping[str, TracedGraph], weights: str) -> None:
    """Write graphs as `name.onnx`, and what they weigh once into one file.

    Args:
        folder: an existing one.
        graphs: by name.
        weights: name of the file of weights.
    """
    tensors: dict[tuple[object, ...], ir.TensorProtocol] = {}
    places: list[tuple[ir.Value, tuple[object, ...]]] = []
    for name, graph in graphs.items():
        for value in graph.model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= INLINE_BYTES:
                continue
            # What is no parameter has a name that means nothing in another graph.
            shared = "." in (value.name or "")
            key: tuple[object, ...] = (
                value.name,
                tensor.dtype,
                tuple(tensor.shape),
                None if shared else name,
            )
            tensors.setdefault(key, tensor)
            places.append((value, key))
    stored = ir.external_data.convert_tensors_to_external(list(tensors.values()), folder, weights)
    by_key = dict(zip(tensors, stored))
    for value, key in places:
        value.const_value = by_key[key]
    for name, graph in graphs.items():
        ir.save(graph.model, folder / f"{name}.onnx")
