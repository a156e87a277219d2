"""ONNX graphs in ONNX Runtime: sessions, and buffers that they read and write in place."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pyrf import forks
from pyrf.dtypes import dtype_of
from pyrf.export.errors import ExportError
from pyrf.export.manifest import GraphSpec, Manifest
from pyrf.extras import needs

with needs("onnx", "the onnxruntime backend"):
    import onnxruntime

# ONNX's numbers of element types; numpy has no bfloat16 to name one by.
_ELEMENT_TYPES = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.bfloat16: 16,
    torch.float8_e4m3fn: 17,
}


class Graph:
    """A graph, ready to run on the CPU. May be bound many times, and run from several threads.

    Args:
        folder: the export.
        spec: the graph's part of its manifest.
        threads: that compute a run.
        arena: keep the memory of a run for the next; else it goes back to the system at once.

    Raises:
        ExportError: when ONNX Runtime cannot load it.
    """

    def __init__(self, folder: Path, spec: GraphSpec, threads: int, *, arena: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # A thread that spins on after a run takes the time of the torch ops that come next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.spec = spec
        path = folder / spec.file
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base of their own
            raise ExportError(
                f"{path}: ONNX Runtime cannot load it ({str(error).splitlines()[0]})"
            ) from error


class Binding:
    """A graph with a buffer for each input and output; ONNX Runtime copies none of them.

    Args:
        graph: to run.
        buffers: contiguous CPU tensors by input and output name. An output that aliases an input takes the
            input's; what else is missing is allocated.
    """

    def __init__(self, graph: Graph, buffers: Mapping[str, Tensor]) -> None:
        self._session = graph.session
        self._io = graph.session.io_binding()
        self._buffers: dict[str, Tensor] = {}
        for spec in (*graph.spec.inputs, *graph.spec.outputs):
            buffer = buffers.get(graph.spec.aliases.get(spec.name, spec.name))
            if buffer is None:
                buffer = torch.zeros(spec.shape, dtype=dtype_of(spec.dtype), device="cpu")
            if tuple(buffer.shape) != spec.shape or buffer.dtype != dtype_of(spec.dtype):
                raise ValueError(
                    f"{spec.name} must be {list(spec.shape)} {spec.dtype}, "
                    f"got {list(buffer.shape)} {buffer.dtype}"
                )
            if not buffer.is_contiguous():
                raise ValueError(f"{spec.name} must be contiguous, got strides {buffer.stride()}")
            self._buffers[spec.name] = buffer
        for specs, bind in (
            (graph.spec.inputs, self._io.bind_input),
            (graph.spec.outputs, self._io.bind_output),
        ):
            for spec in specs:
                x = self._buffers[spec.name]
                bind(spec.name, "cpu", 0, _ELEMENT_TYPES[x.dtype], list(x.shape), x.data_ptr())

    def __getitem__(self, name: str) -> Tensor:
        """The buffer of an input or output."""
        return self._buffers[name]

    def run(self) -> None:
        """Compute the outputs from what the inputs' buffers hold now."""
        self._session.run_with_iobinding(self._io)


class GraphSet:
    """The graphs of an export, each loaded when first asked for.

    Args:
        folder: the export.
        manifest: its manifest.
        threads: that compute a run.
        arenas: whether each keeps the memory of a run for the next.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int, *, arenas: bool = True) -> None:
        self.folder, self.manifest, self.threads, self.arenas = folder, manifest, threads, arenas
        self._loaded: dict[str, Graph] = {}
        forks.follow(self)

    def _after_fork(self) -> None:
        """Load the graphs anew in the child, for one thread (a `pyrf.forks.Follower`).

        The parent's sessions are kept for ever: to free one is to wait for threads that the child has not.
        """
        for graph in self._loaded.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph.session))
        self._loaded, self.threads = {}, 1

    def __getitem__(self, name: str) -> Graph:
        """A graph by its name in `pyrf.export.manifest.GRAPHS`.

        Raises:
            ExportError: when the export has no such graph, or it cannot be loaded.
        """
        if name not in self.manifest.graphs:
            raise ExportError(f"{self.folder} holds no graph {name!r}; export the bundle again")
        if name not in self._loaded:
            self._loaded[name] = Graph(
                self.folder, self.manifest.graphs[name], self.threads, arena=self.arenas
            )
        return self._loaded[name]
