"""An engine with its buffers: bound once, run many times, as a CUDA graph from the second run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pyrf.backends.tensorrt.device import Device, Memory, Plan, Queue
from pyrf.dtypes import dtype_of
from pyrf.export.errors import ExportError
from pyrf.export.manifest import TensorSpec

ALIGNMENT = 16
"""Bytes to which TensorRT and the kernels want addresses aligned; torch's allocator gives 512."""


class BoundPlan:
    """A plan whose inputs and outputs lie in fixed buffers (no copies).

    The first run is direct, as TensorRT makes itself ready in it; the second is captured into a graph, and
    that is launched from then on.

    Args:
        plan: the engine.
        device, stream: where it runs.
        scratch: see `Plan.context`.
        buffers: by input and output name, contiguous, on the device. An output that aliases an input takes
            the input's buffer; what else is missing is allocated on the stream.
        length: see `Plan.context`.

    Raises:
        ExportError: when a buffer does not fit, or an output that must lie at its input's address does not.
    """

    def __init__(
        self,
        plan: Plan,
        device: Device,
        stream: Queue,
        scratch: Memory,
        buffers: Mapping[str, Tensor],
        length: int | None = None,
    ) -> None:
        self._device, self._stream = device, stream
        self._context = plan.context(scratch, stream, length)
        self._scratch = scratch  # the context has its address only, and runs in it
        self._buffers: dict[str, Tensor] = {}
        self._graph: Callable[[], None] | None = None
        self._ready = False
        for spec in (*plan.spec.inputs, *plan.spec.outputs):
            if spec.name == "length":
                continue  # the context knows it
            shared = self._buffers.get(plan.spec.aliases.get(spec.name, ""))
            buffer = buffers.get(spec.name, shared)
            if buffer is None:
                buffer = torch.zeros(spec.shape, dtype=dtype_of(spec.dtype), device=device.torch_device)
            _check(spec, buffer, device.torch_device)
            if shared is not None and buffer.data_ptr() != shared.data_ptr():
                raise ExportError(
                    f"{spec.name} must lie at the address of {plan.spec.aliases[spec.name]}: "
                    "the engine updates the cache in place"
                )
            self._buffers[spec.name] = buffer
            self._context.set_tensor_address(spec.name, buffer.data_ptr())

    def __getitem__(self, name: str) -> Tensor:
        """The buffer of an input or output."""
        return self._buffers[name]

    def run(self) -> None:
        """Give a run to the stream; what the buffers hold then is what it reads."""
        if self._graph is not None:
            self._graph()
        elif self._ready:
            self._graph = self._device.capture(self._stream, self._execute)
            self._graph()
        else:
            self._execute()
            self._ready = True

    def _execute(self) -> None:
        self._context.execute(self._stream)


def _check(spec: TensorSpec, buffer: Tensor, device: torch.device) -> None:
    if tuple(buffer.shape) != spec.shape or buffer.dtype != dtype_of(spec.dtype):
        raise ExportError(
            f"{spec.name} must be {list(spec.shape)} {spec.dtype}, got {list(buffer.shape)} {buffer.dtype}"
        )
    if buffer.device != device:
        raise ExportError(f"{spec.name} must lie on {device}, got {buffer.device}")
    if not buffer.is_contiguous() or buffer.data_ptr() % ALIGNMENT:
        raise ExportError(
            f"{spec.name} must be contiguous and aligned to {ALIGNMENT} bytes, "
            f"got strides {buffer.stride()} at address {buffer.data_ptr():#x}"
        )
