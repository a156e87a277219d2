"""pyrf's attention kernel inside TensorRT's engines: a plugin for the node `pyrf::RingAttention`.

It is written with `tensorrt.plugin`, ahead of time: the engine holds the kernel's PTX, and needs no Python to
run. Without it TensorRT runs the node's meaning, a function in the graph, with its own fused attention.
Optional, and never run on a GPU: measure both (docs/tensorrt.md).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pyrf.export.errors import ExportError
from pyrf.export.graphs.nodes import DOMAIN, RING_ATTENTION
from pyrf.export.tensorrt.library import TENSORRT_DTYPES
from pyrf.kernels.instances import RING_QUERIES, Instance
from pyrf.kernels.nvcc import SOURCES, compile_kernel

PLUGIN = f"{DOMAIN}::{RING_ATTENTION}"
SOURCE = "ring_attention_plugin.cu"


def compile_ptx(arch: str) -> str:
    """The PTX of the plugin's kernels.

    Raises:
        ExportError: without nvcc or the sources.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="pyrf-plugin-") as folder:
            output = Path(folder) / "plugin.ptx"
            compile_kernel(SOURCES / SOURCE, output, [arch], ptx=True)
            return output.read_text()
    except RuntimeError as error:
        raise ExportError(
            f"the attention plugin needs nvcc and a checkout's csrc/ ({str(error).splitlines()[0]}); "
            "leave it out to use TensorRT's own attention"
        ) from error


def register(plugin: Any, ptx: str) -> None:
    """Register the plugin with TensorRT.

    Args:
        plugin: the module `tensorrt.plugin`.
        ptx: from `compile_ptx`.
    """

    def describe(q: Any, keys: Any, values: Any, length: Any) -> Any:
        """[B, heads, N, head_dim] to [B, N, heads * head_dim]."""
        batch, heads, queries, head_dim = q.shape_expr
        out = q.like()
        out.shape_expr = (batch, queries, heads * head_dim)
        return out

    def implement(q: Any, keys: Any, values: Any, length: Any, outputs: Any, tactic: Any) -> Any:
        batch, heads, queries, head_dim = (size.constant_value() for size in q.shape_expr)
        capacity = keys.shape_expr[2].constant_value()
        dtype = TENSORRT_DTYPES.get(q.dtype.name, "")
        instance = Instance.serving("ring_attention", dtype, heads, head_dim)
        if instance is None:
            raise ExportError(
                f"the attention plugin takes float16 or bfloat16 and heads of 64 or 128, "
                f"got {q.dtype.name} and {head_dim}; leave the plugin out"
            )
        threads, shared = instance.block(heads)
        launch = plugin.KernelLaunchParams()
        launch.grid_x, launch.grid_y, launch.grid_z = -(-queries // RING_QUERIES), heads, batch
        launch.block_x, launch.shared_mem = threads, shared
        numbers = plugin.SymIntExprs(3)
        for i, number in enumerate((heads, queries, capacity)):
            numbers[i] = plugin.SymInt32(number)
        return f"pyrf_ring_attention_{dtype}_{head_dim}", ptx, launch, numbers

    def combinations(q: Any, keys: Any, values: Any, length: Any, outputs: Any) -> Any:
        """One dtype of q, keys, values and the output; the length stays int64."""
        return [plugin.AutoTuneCombination("FP16|BF16, FP16|BF16, FP16|BF16, INT64, FP16|BF16", "LINEAR")]

    # TensorRT reads the hints of the signature, and they exist only where TensorRT does.
    names = ("q", "keys", "values", "length", "return")
    describe.__annotations__ = dict.fromkeys(names, plugin.TensorDesc)
    combinations.__annotations__ = {}
    implement.__annotations__ = {}
    plugin.register(PLUGIN)(describe)
    plugin.autotune(PLUGIN)(combinations)
    plugin.aot_impl(PLUGIN)(implement)


def name_plugin(path: Path) -> bytes:
    """A graph whose ring attention names the plugin, and has lost the function that it otherwise means.

    Args:
        path: the .onnx file; its weights stay outside.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if (node.domain, node.op_type) == (DOMAIN, RING_ATTENTION):
            for name, value in (("plugin_namespace", DOMAIN), ("plugin_version", "1")):
                node.attribute.append(onnx.helper.make_attribute(name, value))
    kept = [function for function in model.functions if function.name != RING_ATTENTION]
    del model.functions[:]
    model.functions.extend(kept)
    return bytes(model.SerializeToString())
