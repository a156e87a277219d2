"""Built engines in TensorRT's runtime: the GPU's side of `pyrf.backends.tensorrt.device.Plan`."""

from __future__ import annotations

from typing import Any

import torch

from pyrf.backends.tensorrt.device import Memory, Queue
from pyrf.export.errors import ExportError
from pyrf.export.manifest import GraphSpec, TensorSpec
from pyrf.export.tensorrt.library import TENSORRT_DTYPES, make_logger


class TensorRTPlan:
    """An engine loaded on the current device (`pyrf.backends.tensorrt.device.Plan`).

    Args:
        trt: the package.
        name: of the graph, for messages.
        engine: from `EngineFolder.engine`.
        aliases: output -> input that share their memory, from the manifest.
        lengths: those it may run with, in the order of its profiles; none for graphs without a length.
        device: the current device.

    Raises:
        ExportError: when TensorRT does not load it.
    """

    def __init__(
        self,
        trt: Any,
        name: str,
        engine: bytes,
        aliases: dict[str, str],
        lengths: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self._trt, self._name, self._lengths = trt, name, lengths
        self.torch_device = device
        self.weight_bytes = len(engine)  # beside the weights there are a few kernels
        self._logger, self._lines = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise ExportError(
                f"TensorRT does not load the engine of {name!r}: {self._last_error()}; "
                "free GPU memory, or remove the engine to have it built again"
            )
        self.spec = GraphSpec(name, self._tensors("INPUT"), self._tensors("OUTPUT"), aliases)
        self._profiled = any(
            tensor.name == "length" and self._engine.is_shape_inference_io("length")
            for tensor in self.spec.inputs
        )

    @property
    def scratch_bytes(self) -> int:
        return int(self._engine.device_memory_size_v2)

    def _tensors(self, mode: str) -> tuple[TensorSpec, ...]:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return tuple(
            TensorSpec(
                name,
                TENSORRT_DTYPES[engine.get_tensor_dtype(name).name],
                tuple(engine.get_tensor_shape(name)),
            )
            for name in names
            if engine.get_tensor_mode(name).name == mode
        )

    def context(self, scratch: Memory, stream: Queue, length: int | None = None) -> TensorRTContext:
        if (length is None) != (not self._lengths) or (length is not None and length not in self._lengths):
            raise ExportError(
                f"the engine of {self._name!r} was built for lengths {list(self._lengths)}, got {length}"
            )
        context = self._engine.create_execution_context(
            self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise ExportError(f"TensorRT makes no context of {self._name!r}: {self._last_error()}")
        context.set_device_memory(scratch.address, scratch.size)
        profile = self._lengths.index(length) if self._profiled and length is not None else 0
        context.set_optimization_profile_async(profile, stream.handle)
        bound = TensorRTContext(context, self._name, self._lines)
        if length is not None:
            bound.set_length(length, None if self._profiled else self.torch_device)
        return bound

    def _last_error(self) -> str:
        return self._lines[-1] if self._lines else "it gives no reason"


class TensorRTContext:
    """An execution context (`pyrf.backends.tensorrt.device.Context`)."""

    def __init__(self, context: Any, name: str, lines: list[str]) -> None:
        self._context, self._name, self._lines = context, name, lines

    def set_length(self, length: int, device: torch.device | None) -> None:
        """Bind the input `length`: on the host, where it decides on shapes, or where kernels read it."""
        # It must outlive the context's runs.
        self._length = torch.tensor([length], dtype=torch.int64, device=device or "cpu")
        self.set_tensor_address("length", self._length.data_ptr())

    def set_tensor_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise ExportError(f"TensorRT refuses the address of {name}: {self._last_error()}")

    def execute(self, stream: Queue) -> None:
        if not self._context.execute_async_v3(stream.handle):
            raise RuntimeError(f"TensorRT did not run {self._name!r}: {self._last_error()}")

    def _last_error(self) -> str:
        return self._lines[-1] if self._lines else "it gives no reason"
