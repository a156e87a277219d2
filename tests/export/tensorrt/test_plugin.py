"""The plugin: what it tells TensorRT, and its kernel as nvcc compiles it, run by the PTX interpreter.

No TensorRT here has `tensorrt.plugin` (RTX's wheel has an empty one), so a stand-in takes what is registered.
"""

import ctypes
import math
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F

from pyrf.export.errors import ExportError
from pyrf.export.manifest import load_manifest
from pyrf.export.tensorrt.engines import BuildOptions, EngineFolder, EngineTarget
from pyrf.export.tensorrt.plugin import PLUGIN, compile_ptx, name_plugin, register
from pyrf.kernels.nvcc import find_nvcc
from tests.kernels.ptx import launch, parse
from tests.kernels.ptx_ops import _Device
from tests.support import exports

NAMES = {torch.float16: "HALF", torch.bfloat16: "BF16"}


class Size(int):
    """A dimension, as TensorRT writes it."""

    def constant_value(self):
        return int(self)

    def __mul__(self, other):
        return Size(int(self) * int(other))


class Desc:
    def __init__(self, dtype, shape):
        self.dtype, self.shape_expr = SimpleNamespace(name=dtype), tuple(map(Size, shape))

    def like(self):
        return Desc(self.dtype.name, self.shape_expr)


class Plugin:
    """What is used of `tensorrt.plugin`."""

    TensorDesc = Desc
    AutoTuneCombination: Any = tuple
    SymInt32 = int

    def __init__(self):
        self.functions = {}
        for kind in ("register", "autotune", "aot_impl"):
            setattr(self, kind, lambda name, kind=kind: self._keep(kind, name))
        self.AutoTuneCombination = lambda types, formats: (types, formats)
        self.KernelLaunchParams = SimpleNamespace
        self.SymIntExprs = lambda count: [None] * count

    def _keep(self, kind, name):
        assert name == PLUGIN
        return lambda function: self.functions.setdefault(kind, function)


def descriptions(dtype, heads, queries, capacity, head_dim):
    q = Desc(dtype, (1, heads, queries, head_dim))
    cache = Desc(dtype, (1, heads, capacity, head_dim))
    return q, cache, cache, Desc("INT64", (1,))


def test_what_tensorrt_is_told():
    plugin = Plugin()
    register(plugin, "the ptx")
    inputs = descriptions("BF16", 12, 4680, 14040, 128)
    assert plugin.functions["register"](*inputs).shape_expr == (1, 4680, 1536)
    assert plugin.functions["register"].__annotations__["q"] is Desc
    types, layout = plugin.functions["autotune"](*inputs, None)[0]
    assert types.count("FP16|BF16") == 4
    assert layout == "LINEAR"
    name, ptx, launched, numbers = plugin.functions["aot_impl"](*inputs, None, None)
    assert (name, ptx) == ("pyrf_ring_attention_bfloat16_128", "the ptx")
    assert numbers == [12, 4680, 14040]
    assert (launched.grid_x, launched.grid_y, launched.grid_z, launched.block_x) == (37, 12, 1, 128)
    with pytest.raises(ExportError, match="got FLOAT and 128"):
        plugin.functions["aot_impl"](*descriptions("FLOAT", 12, 4680, 14040, 128), None, None)


@pytest.mark.skipif(find_nvcc() is None, reason="needs nvcc, which is not here")
def test_the_kernel_for_sm_90a_is_attention_for_every_length():
    plugin = Plugin()
    text = compile_ptx("90a")
    assert ".target sm_90a" in text
    register(plugin, text)
    kernels = parse(text, "pyrf_ring_attention")
    assert len(kernels) == 4
    for dtype, head_dim in ((torch.bfloat16, 64), (torch.float16, 128)):
        for length in (20, 150, 0):
            check(plugin, kernels, dtype, head_dim, length)


def check(plugin, kernels, dtype, head_dim, length, heads=2, queries=40, capacity=160):
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(1, heads, queries, head_dim, generator=generator).to(dtype)
    keys, values = (torch.randn(1, heads, capacity, head_dim, generator=generator).to(dtype) for _ in "kv")
    keys[:, :, length:] = values[:, :, length:] = math.nan
    out = torch.full((1, queries, heads * head_dim), math.nan, dtype=dtype)
    inputs = descriptions(NAMES[dtype], heads, queries, capacity, head_dim)
    name, _, launched, numbers = plugin.functions["aot_impl"](*inputs, None, None)
    device, valid = _Device(), torch.tensor([length])
    # TensorRT's order: inputs, numbers, outputs.
    fields: list[tuple[str, Any]] = [(f"p{i}", ctypes.c_uint64) for i in range(4)]
    fields += [(f"n{i}", ctypes.c_int32) for i in range(3)] + [("out", ctypes.c_uint64)]
    arguments = type("Arguments", (ctypes.Structure,), {"_fields_": fields})
    pointers = [device.pointer(x) for x in (q, keys, values, valid)]
    grid = launched.grid_x, launched.grid_y, launched.grid_z
    block = launched.block_x, 1, 1
    parameters = bytes(arguments(*pointers, *numbers, device.pointer(out)))
    launch(kernels[name], grid, block, parameters, device.memory, launched.shared_mem)
    device.fetch()
    if length == 0:  # no valid length: nothing is written
        assert out.isnan().all()
        return
    seen_keys, seen_values = (x[:, :, :length].double() for x in (keys, values))
    expected = F.scaled_dot_product_attention(q.double(), seen_keys, seen_values).transpose(1, 2).flatten(2)
    error = (out.double() - expected).norm() / expected.norm()
    assert error < {torch.bfloat16: 3e-3, torch.float16: 4e-4}[dtype]


def test_a_graph_for_the_plugin_names_it_and_keeps_its_weights_outside():
    folder = exports.exported("float16")
    model = onnx.load_model_from_string(name_plugin(folder / "denoise.onnx"))
    nodes = [node for node in model.graph.node if node.domain == "pyrf"]
    assert len(nodes) == exports.MODEL.num_layers
    for node in nodes:
        named = {a.name: a.s.decode() for a in node.attribute}
        assert (named["plugin_namespace"], named["plugin_version"]) == ("pyrf", "1")
    assert not [f for f in model.functions if f.name == "RingAttention"]
    assert any(tensor.external_data for tensor in model.graph.initializer)


def test_only_calls_with_attention_take_the_plugin_and_then_no_profiles():
    folder = exports.exported("float16")
    engines = EngineFolder(
        folder, load_manifest(folder), EngineTarget("tensorrt 10.16.1", "9.0"), BuildOptions(plugin=True)
    )
    assert engines.key("denoise").flags == ("level3", "plugin")
    assert engines.key("prompt").flags == ("level3",)
    asked = engines.request("denoise", "plan")
    assert (asked.plugin, asked.lengths) == ("90a", ())


def test_the_plugin_takes_no_cache_in_e4m3():
    folder = exports.exported("bfloat16", "fp8-attention")
    target = EngineTarget("tensorrt 10.16.1", "9.0")
    with pytest.raises(ExportError, match=r"takes no cache in e4m3.* leave the plugin out"):
        EngineFolder(folder, load_manifest(folder), target, BuildOptions(plugin=True))


def test_without_nvcc_a_line_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr("pyrf.kernels.nvcc.find_nvcc", lambda: None)
    with pytest.raises(ExportError, match=r"needs nvcc .* leave it out") as raised:
        compile_ptx("90a")
    assert "\n" not in str(raised.value)


def test_the_wheel_for_tests_has_no_plugins():
    """If this fails, the plugin can be built here, and should be."""
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(ImportError):
        import tensorrt_rtx.plugin  # noqa: F401
