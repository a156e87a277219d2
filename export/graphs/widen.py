"""A bfloat16 export as float32: the same graphs, for runtimes without bfloat16 kernels to check it with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from pyrf.export.manifest import MANIFEST, GraphSpec, Manifest, TensorSpec, file_entry, load_manifest

_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def widen(folder: Path, target: Path) -> Manifest:
    """Write a bfloat16 export again with float32 in place of every bfloat16. The weights' values stay.

    Args:
        folder: the export.
        target: an existing, empty folder.
    """
    manifest = load_manifest(folder)
    for name, spec in manifest.graphs.items():
        model = ir.load(folder / spec.file)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype == ir.DataType.BFLOAT16:
                value.const_value = ir.tensor(tensor.numpy().astype(np.float32), name=value.name)
        _retype(model.graph)
        for function in model.functions.values():
            _retype(function)
        ir.save(model, target / spec.file, external_data=f"{name}.weights")
    widened = replace(
        manifest,
        dtype="float32",
        graphs={name: _widened_spec(spec) for name, spec in manifest.graphs.items()},
        files={path.name: file_entry(path) for path in sorted(target.iterdir())},
    )
    (target / MANIFEST).write_text(widened.to_json(), encoding="utf-8")
    return widened


def _retype(graph: ir.Graph | ir.Function) -> None:
    """Change every value and type attribute that says bfloat16."""
    values = [*graph.inputs]
    if isinstance(graph, ir.Graph):
        values += graph.initializers.values()
    for node in graph.all_nodes():
        values += node.outputs
        for name in _TYPE_ATTRIBUTES:
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.value == ir.DataType.BFLOAT16:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
    for value in values:
        if value.dtype == ir.DataType.BFLOAT16:
            value.dtype = ir.DataType.FLOAT


def _widened_spec(spec: GraphSpec) -> GraphSpec:
    def widened(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(t, dtype="float32") if t.dtype == "bfloat16" else t for t in tensors)

    return replace(spec, inputs=widened(spec.inputs), outputs=widened(spec.outputs))
