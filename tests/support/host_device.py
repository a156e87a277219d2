"""A GPU and TensorRT played by host memory and ONNX Runtime, as strict as they are.

A lazy stream does its work as late as CUDA might: when it is waited for. So whoever reads too early, or
writes too early over what is still to be read, gets wrong results.
"""

import ctypes
from contextlib import contextmanager, nullcontext
from typing import Any

import onnxruntime
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyrf.backends.tensorrt.device import DeviceError
from pyrf.backends.tensorrt.rollout import PlanSet
from pyrf.export.errors import ExportError
from pyrf.export.manifest import DECODER, STUDENT, load_manifest

SCRATCH = 4096
WEIGHTS = 1 << 16
_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int64": 7, "bool": 9, "float16": 10, "float8_e4m3fn": 17}


class HostDevice:
    """See `pyrf.backends.tensorrt.device.Device`.

    Args:
        room: bytes that may be allocated.
    """

    torch_device = torch.device("cpu")

    def __init__(self, room=1 << 30):
        self.room = room
        self.streams = []
        self.captures = 0

    def stream(self):
        self.streams.append(HostStream())
        return self.streams[-1]

    @contextmanager
    def on(self, stream, *, join=True):
        """A stream that is not joined is lazy; else the torch ops that follow belong to its work."""
        stream.lazy |= not join
        with _Later(stream) if stream.lazy else nullcontext():
            yield
        if join and stream.lazy:
            stream.synchronize()

    def allocate(self, size):
        if size > self.room:
            raise DeviceError(f"the GPU has no room for {size} bytes")
        self.room -= size
        return HostMemory(size)

    def pinned(self, shape, dtype):
        return torch.empty(shape, dtype=dtype)

    def capture(self, stream, enqueue):
        self.captures += 1
        recorded: list[Any] = []
        stream.recording = True
        stream.give, give = recorded.append, stream.give
        try:
            enqueue()
        finally:
            stream.recording = False
            del stream.give
        assert len(recorded) == 1
        return lambda: give(recorded[0])


class HostMemory:
    def __init__(self, size):
        self.size = size
        self._bytes = ctypes.create_string_buffer(size)
        self.address = ctypes.addressof(self._bytes)


class HostStream:
    handle = 1
    recording = False

    def __init__(self):
        self.lazy = False
        self._work = []

    def give(self, work):
        if self.lazy:
            self._work.append(work)
        else:
            work()

    def record(self):
        return HostEvent(self)

    def synchronize(self):
        work, self._work = self._work, []
        for do in work:
            do()


class HostEvent:
    def __init__(self, stream):
        self._stream = stream

    def synchronize(self):
        self._stream.synchronize()


class _Later(TorchDispatchMode):
    """Puts copies off, as a stream does; what they read is read then."""

    def __init__(self, stream):
        super().__init__()
        self._stream = stream

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is not torch.ops.aten.copy_.default:
            return func(*args, **(kwargs or {}))
        self._stream.give(lambda: func(*args, **(kwargs or {})))
        return args[0]


class HostPlan:
    """A graph in ONNX Runtime, with the manners of a TensorRT engine (`Plan`)."""

    scratch_bytes = SCRATCH
    weight_bytes = WEIGHTS

    def __init__(self, folder, spec, lengths=()):
        self.spec = spec
        self.lengths = lengths if any(tensor.name == "length" for tensor in spec.inputs) else ()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # for networks so small
        path = folder / spec.file
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def context(self, scratch, stream, length=None):
        if length is not None and length not in self.lengths:
            raise ExportError(f"built for lengths {list(self.lengths)}, got {length}")
        if scratch.size < self.scratch_bytes:
            raise RuntimeError("the scratch memory is too small")
        return HostContext(self, length)


class HostContext:
    def __init__(self, plan, length):
        self.plan = plan
        self.addresses = {}
        self.captured = False
        if plan.lengths:
            self._length = torch.tensor([length])
            self.set_tensor_address("length", self._length.data_ptr())

    def set_tensor_address(self, name, address):
        if name not in {tensor.name for tensor in (*self.plan.spec.inputs, *self.plan.spec.outputs)}:
            raise RuntimeError(f"there is no tensor {name}")
        if self.captured:
            raise RuntimeError("a captured graph keeps its addresses")
        self.addresses[name] = address

    def execute(self, stream):
        spec, addresses = self.plan.spec, self.addresses
        missing = {tensor.name for tensor in (*spec.inputs, *spec.outputs)} - set(addresses)
        if missing:
            raise RuntimeError(f"no address for {sorted(missing)}")
        for output, source in spec.aliases.items():
            if addresses[output] != addresses[source]:
                raise RuntimeError(f"{output} must lie at the address of {source}")
        self.captured |= stream.recording
        io = self.plan.session.io_binding()
        for tensors, bind in ((spec.inputs, io.bind_input), (spec.outputs, io.bind_output)):
            for t in tensors:
                bind(t.name, "cpu", 0, _ELEMENT_TYPES[t.dtype], list(t.shape), addresses[t.name])
        stream.give(lambda: self.plan.session.run_with_iobinding(io))


def host_plans(folder, device=None):
    """The engines of an exported folder, as `plans_on_gpu` would load them."""
    manifest = load_manifest(folder)
    plans = {name: HostPlan(folder, manifest.graphs[name], manifest.lengths) for name in (*STUDENT, *DECODER)}
    return PlanSet(manifest, plans, device or HostDevice())
