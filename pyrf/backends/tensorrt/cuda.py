"""A CUDA device through cuda-python: streams, events, memory and graphs (`device.Device`)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyrf.backends.tensorrt.device import DeviceError, Queue
from pyrf.extras import needs


def _runtime() -> Any:
    """cuda-python's runtime API.

    Raises:
        MissingExtraError: when the package is missing.
    """
    with needs("tensorrt", "the tensorrt backend"):
        from cuda.bindings import runtime
    return runtime


def _checked(runtime: Any, answer: tuple[Any, ...]) -> Any:
    """What a call of the runtime returned, without the status, which it never raises itself.

    Raises:
        DeviceError: when the status is an error.
    """
    status, *values = answer
    if status != runtime.cudaError_t.cudaSuccess:
        text = runtime.cudaGetErrorString(status)[1].decode()
        raise DeviceError(f"CUDA: {text} ({status.name})")
    return values[0] if len(values) == 1 else tuple(values)


class CudaDevice:
    """A CUDA device, shared with torch.

    Args:
        device: "cuda" or "cuda:1", ...

    Raises:
        DeviceError: when there is no driver or device, or torch cannot use it.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise DeviceError(
                f"the tensorrt backend needs a CUDA device, got {str(device)!r}; "
                "give device cuda, or on a CPU use backend onnxruntime or torch"
            )
        self._runtime = _runtime()
        self.index = device.index or 0
        try:
            count = int(self._call(self._runtime.cudaGetDeviceCount()))
        except DeviceError as error:
            raise DeviceError(
                f"the tensorrt backend finds no NVIDIA GPU or driver ({error}); "
                "install the driver, or use backend onnxruntime or torch"
            ) from None
        if self.index >= count:
            raise DeviceError(f"device {str(device)!r} was asked for, but there are {count} CUDA devices")
        if not torch.cuda.is_available():
            raise DeviceError(
                "the tensorrt backend shares its memory with torch, and this torch is built without CUDA; "
                "install a CUDA build of torch, or use backend onnxruntime"
            )
        self.torch_device = torch.device("cuda", self.index)
        torch.cuda.init()
        self._select()

    def _call(self, answer: tuple[Any, ...]) -> Any:
        return _checked(self._runtime, answer)

    def _select(self) -> None:
        """Make this the thread's current device."""
        self._call(self._runtime.cudaSetDevice(self.index))

    @property
    def compute_capability(self) -> str:
        """ "9.0" for an H100."""
        attributes = self._runtime.cudaDeviceAttr
        major, minor = (
            self._call(self._runtime.cudaDeviceGetAttribute(attribute, self.index))
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"{major}.{minor}"

    def stream(self) -> CudaStream:
        self._select()
        return CudaStream(self._runtime)

    @contextmanager
    def on(self, stream: Queue, *, join: bool = True) -> Iterator[None]:
        self._select()
        outer = torch.cuda.current_stream(self.torch_device)
        inner = torch.cuda.ExternalStream(stream.handle, self.torch_device)
        inner.wait_stream(outer)
        with torch.cuda.stream(inner):
            yield
        if join:
            outer.wait_stream(inner)

    def allocate(self, size: int) -> CudaMemory:
        self._select()
        return CudaMemory(self._runtime, size)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=True)

    def capture(self, stream: Queue, enqueue: Callable[[], None]) -> Callable[[], None]:
        runtime, call = self._runtime, self._call
        # Other threads may allocate meanwhile, which a global capture would forbid.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(runtime.cudaStreamBeginCapture(stream.handle, mode))
        try:
            enqueue()
        finally:
            graph = call(runtime.cudaStreamEndCapture(stream.handle))
        executable = call(runtime.cudaGraphInstantiate(graph, 0))
        call(runtime.cudaGraphDestroy(graph))
        return _Graph(runtime, executable, stream)


class _Graph:
    def __init__(self, runtime: Any, executable: Any, stream: Queue) -> None:
        self._runtime, self._executable, self._stream = runtime, executable, stream
        weakref.finalize(self, runtime.cudaGraphExecDestroy, executable)

    def __call__(self) -> None:
        _checked(self._runtime, self._runtime.cudaGraphLaunch(self._executable, self._stream.handle))


class CudaStream:
    """A stream of its own, which does not wait for the default stream."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        stream = _checked(runtime, runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.handle = int(stream)
        weakref.finalize(self, runtime.cudaStreamDestroy, stream)

    def record(self) -> CudaEvent:
        return CudaEvent(self._runtime, self.handle)

    def synchronize(self) -> None:
        _checked(self._runtime, self._runtime.cudaStreamSynchronize(self.handle))


class CudaEvent:
    """An event without a time, recorded at once."""

    def __init__(self, runtime: Any, stream: int) -> None:
        self._runtime = runtime
        self.event = _checked(runtime, runtime.cudaEventCreateWithFlags(runtime.cudaEventDisableTiming))
        weakref.finalize(self, runtime.cudaEventDestroy, self.event)
        _checked(runtime, runtime.cudaEventRecord(self.event, stream))

    def synchronize(self) -> None:
        _checked(self._runtime, self._runtime.cudaEventSynchronize(self.event))


class CudaMemory:
    """A block from cudaMalloc, given back when the object goes."""

    def __init__(self, runtime: Any, size: int) -> None:
        self.size = size
        try:
            self.address = int(_checked(runtime, runtime.cudaMalloc(max(size, 1))))
        except DeviceError:
            free, total = (value / 2**30 for value in _checked(runtime, runtime.cudaMemGetInfo()))
            raise DeviceError(
                f"the GPU has no room for {size / 2**30:.2f} GiB of TensorRT's scratch memory "
                f"({free:.1f} of {total:.1f} GiB free); export a smaller size or window, or use backend torch"
            ) from None
        weakref.finalize(self, runtime.cudaFree, self.address)
