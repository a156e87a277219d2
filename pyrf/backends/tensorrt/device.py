"""What the TensorRT backend asks of a GPU and of a built engine.

The loop in `rollout.py` is written against these protocols alone. On a GPU they are kept by `cuda.py` and
`runtime.py`, in the tests by host memory and ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from pyrf.export.manifest import GraphSpec


class Event(Protocol):
    """A point in a stream's work."""

    def synchronize(self) -> None:
        """Wait on the host until the work before it is done."""
        ...


class Queue(Protocol):
    """Work that a device does in order."""

    @property
    def handle(self) -> int:
        """The cudaStream_t."""
        ...

    def record(self) -> Event:
        """Mark the end of the work given so far."""
        ...

    def synchronize(self) -> None:
        """Wait on the host until all work given so far is done."""
        ...


class Memory(Protocol):
    """A block of device memory, freed with the object."""

    @property
    def address(self) -> int: ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class Device(Protocol):
    """A GPU."""

    @property
    def torch_device(self) -> torch.device: ...

    def stream(self) -> Queue:
        """A new stream."""
        ...

    def on(self, stream: Queue, *, join: bool = True) -> AbstractContextManager[object]:
        """Inside, torch's work and allocations belong to the stream, and this thread to the device.

        The stream first waits for what torch's current stream was given before; afterwards that one waits
        for it, unless ``join`` is false.
        """
        ...

    def allocate(self, size: int) -> Memory:
        """Allocate bytes.

        Raises:
            DeviceError: when the device has no room for them.
        """
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A host tensor that can be copied to and from while the host goes on."""
        ...

    def capture(self, stream: Queue, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what `enqueue` gives to the stream, without running it.

        Returns:
            A call that gives the recorded work to the stream, at the same addresses.
        """
        ...


class DeviceError(ValueError):
    """There is no usable GPU, or it has no room."""


class Context(Protocol):
    """An engine made ready for one set of addresses."""

    def set_tensor_address(self, name: str, address: int) -> None:
        """Say where an input or output lies."""
        ...

    def execute(self, stream: Queue) -> None:
        """Give one run to the stream.

        Raises:
            RuntimeError: when an address is missing or wrong; nothing ran.
        """
        ...


class Plan(Protocol):
    """A built engine, loaded; its contexts share its weights.

    Attributes:
        spec: names, dtypes and shapes of inputs and outputs, and which share their memory.
        scratch_bytes: memory that a run needs beside them; contexts that never run at once may share it.
        weight_bytes: memory that the engine holds as long as it is loaded.
    """

    @property
    def spec(self) -> GraphSpec: ...

    @property
    def scratch_bytes(self) -> int: ...

    @property
    def weight_bytes(self) -> int: ...

    def context(self, scratch: Memory, stream: Queue, length: int | None = None) -> Context:
        """A new context.

        Args:
            scratch: of `scratch_bytes` or more.
            stream: where it will run.
            length: what the graph's input `length` is to be, if it has that: one of the export's lengths.

        Raises:
            ValueError: when the engine was not built for the length.
        """
        ...
