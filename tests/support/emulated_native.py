"""The native module's kernels on CPU tensors, emulated: what the CUDA path of the ops calls."""

import warnings
from contextlib import contextmanager
from importlib import import_module

import torch

from pyrf.ops import native
from pyrf.ops.library import checked
from tests.kernels.emulator import View, build, load, signatures

OPS = ("add_norm", "norm_rope_append", "quantise_rows", "ring_attention", "ema_sink_update")
MODULES = {name: import_module(f"pyrf.ops.{name}") for name in OPS}
RUN_CUDA = {name: checked(op.Args, op._check, op._run_cuda) for name, op in MODULES.items()}
ADD_NORM = MODULES["add_norm"]
RUN_CUDA["add_norm_e4m3"] = checked(ADD_NORM.Args, ADD_NORM._check_e4m3, ADD_NORM._run_e4m3_cuda)
"""What the dispatcher calls for CUDA tensors."""


class EmulatedKernels:
    """A function per op, which takes and raises what the native module's does.

    Attributes:
        calls: names of what ran.
    """

    def __init__(self):
        self.library = load(build())
        self.calls = []

    def __getattr__(self, op):
        def call(*arguments):
            kinds = signatures()[op].values()
            status = getattr(self.library, f"pyrf_{op}")(*map(_as_c, arguments, kinds))
            if status:
                message = self.library.pyrf_last_error().decode()
                raise ValueError(message) if status == 1 else RuntimeError(message)
            self.calls.append(op)

        return call


def _as_c(argument, kind):
    if kind != "pyrf_view":
        return argument
    return View() if argument is None else View.of(*argument)


@contextmanager
def cpu_tensors_take_the_cuda_path(monkeypatch, kernels):
    """Dispatch the ops on CPU tensors as if these were on a GPU that the kernels serve."""
    monkeypatch.setattr(native, "kernels", kernels)
    monkeypatch.setattr(native, "_capability", lambda device: (9, 0))
    monkeypatch.setattr(
        native, "launch", lambda op, device, *args: getattr(kernels, op)(*native.as_views(args), 0)
    )
    with torch.library._scoped_library("pyrf", "IMPL") as library:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the ops have a path of the CPU already
            for name, run in RUN_CUDA.items():
                library.impl(name, run, "CPU")
        yield kernels
