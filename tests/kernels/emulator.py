"""The kernels compiled for the CPU: builds the emulator's library, and calls its ops on numpy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
HEADER = CSRC / "pyrf.h"
CACHE = ROOT / "build" / "emulator"

COMPILER = os.environ.get("CXX", "g++")
FLAGS: tuple[str, ...] = ("-std=c++17", "-march=native", "-ffp-contract=off", "-fPIC", "-DPYRF_EMULATE")
FLAGS += ("-Wall", "-Wextra", "-Wno-unknown-pragmas")

KERNELS = (
    "add_norm",
    "ema_sink_update",
    "norm_rope_append",
    "quantise_rows",
    "ring_attention",
    "ring_attention_e4m3",
)
ELEMENTS = ("bf16", "fp16")
DTYPES = {"bf16": 0, "fp16": 1, "float32": 2, "int16": 3, "int64": 4, "e4m3": 5}
"""As in csrc/view.h."""
SCHEDULES = ("round robin", "random", "starve")
COPY_MODES = ("at once", "at wait", "either")
EVERY_SCHEDULE = tuple(product(range(len(SCHEDULES)), range(len(COPY_MODES))))


def with_includes(path: Path, seen: dict[Path, str]) -> None:
    """Collect the text of a source and of what it includes from its own tree."""
    path = path.resolve()
    if path in seen or not path.is_file():
        return
    seen[path] = text = path.read_text()
    for name in re.findall(r'#include "([^"]+)"', text):
        for folder in (path.parent, CSRC):
            with_includes(folder / name, seen)


def _key(source: Path, command: Sequence[str]) -> str:
    seen: dict[Path, str] = {}
    with_includes(source, seen)
    parts = [*command, platform.node(), *(seen[path] for path in sorted(seen))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@contextmanager
def _atomic(target: Path) -> Iterator[Path]:
    """A path beside the target, which takes its place when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        yield Path(folder, target.name)
        Path(folder, target.name).rename(target)


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")


def _compile(source: Path, flags: Sequence[str], cache: Path) -> Path:
    language = ("-x", "c++") if source.suffix == ".cu" else ()
    command = [COMPILER, *FLAGS, *flags, f"-I{CSRC}"]
    target = cache / f"{source.stem}-{_key(source, command)}.o"
    if not target.exists():
        with _atomic(target) as path:
            _run([*command, *language, "-c", str(source), "-o", str(path)])
    return target


def build(
    csrc: Path = CSRC,
    *,
    flags: Sequence[str] = ("-O1",),
    runtime_flags: Sequence[str] = ("-O2",),
    link_flags: Sequence[str] = (),
    cache: Path = CACHE,
    kernels: Sequence[str] = KERNELS,
    extra: Sequence[Path] = (),
    objects: Sequence[Path] = (),
) -> Path:
    """Compile what has changed, and link.

    Args:
        csrc: the kernels' folder, or a changed copy of it.
        flags: for the kernels.
        runtime_flags: for the emulator itself.
        link_flags: for the library.
        cache: folder of the kernels' objects and of the library, named by the hash of all that went into
            them; the emulator's own objects are always in the usual folder.
        kernels: which to build.
        extra: other sources to add.
        objects: what is compiled already.

    Returns:
        The shared library.
    """
    sources = [*(csrc / f"{kernel}.cu" for kernel in kernels), *extra]
    objects = [*objects, *(_compile(source, flags, cache) for source in sources)]
    runtime = [csrc / "check.cpp", *sorted((csrc / "emulator").glob("*.cpp"))]
    objects += [_compile(source, runtime_flags, CACHE) for source in runtime]
    names = [*link_flags, *(path.name for path in objects)]
    library = cache / f"pyrf-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:24]}.so"
    if not library.exists():
        with _atomic(library) as path:
            _run([COMPILER, "-shared", *link_flags, *map(str, objects), "-o", str(path)])
    return library


def has_compiler() -> bool:
    """Whether the emulator can be built here."""
    return shutil.which(COMPILER) is not None


class RefusedError(ValueError):
    """A launcher did not accept its arguments."""


class FailedError(RuntimeError):
    """A kernel did something wrong: the emulator says what."""


class Counters(NamedTuple):
    """Events since the counters were last read."""

    switches: int
    barriers: int
    matrix_loads: int
    bank_conflicts: int
    multiply_adds: int
    async_copies: int
    bytes_loaded: int
    bytes_stored: int


class View(ctypes.Structure):
    """A tensor, as in csrc/view.h."""

    _fields_ = [
        ("address", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
    ]

    @classmethod
    def of(cls, address: int, dtype: int, shape: Sequence[int], strides: Sequence[int]) -> View:
        sizes = ctypes.c_int64 * len(shape)
        return cls(address, dtype, len(shape), sizes(*shape), sizes(*strides))


C_TYPES = {
    "pyrf_view": View,
    "int": ctypes.c_int,
    "int64_t": ctypes.c_int64,
    "double": ctypes.c_double,
    "void*": ctypes.c_void_p,
}


@cache
def signatures(header: Path = HEADER) -> dict[str, dict[str, str]]:
    """Of each function of a C interface that takes views the types of its arguments, by name."""
    text = re.sub(r"//.*", "", header.read_text())
    found = re.findall(r"\bpyrf_(\w+)\((\s*pyrf_view [^)]*)\);", text)
    return {
        op: {name: kind for kind, name in (argument.split() for argument in arguments.split(","))}
        for op, arguments in found
    }


def load(library: Path, header: Path = HEADER) -> ctypes.CDLL:
    """A library with a C interface, whose functions take Python's numbers and `View`s."""
    loaded = ctypes.CDLL(str(library))
    loaded.pyrf_last_error.restype = ctypes.c_char_p
    for op, arguments in signatures(header).items():
        if hasattr(loaded, f"pyrf_{op}"):
            getattr(loaded, f"pyrf_{op}").argtypes = [C_TYPES[kind] for kind in arguments.values()]
    return loaded


class Emulator:
    """The C interface on numpy arrays; those of 16-bit floats are uint16, of e4m3 uint8.

    Every array given to an op is registered, so that an access outside them is an error.
    """

    def __init__(self, library: Path) -> None:
        self.library = load(library)
        self.configure(0, 0)

    def configure(self, schedule: int, copy_mode: int, seed: int = 1) -> None:
        """Choose how the next launches run, by index into SCHEDULES and COPY_MODES."""
        self.library.pyrf_emulator_configure(schedule, ctypes.c_uint64(seed), copy_mode)

    def counters(self) -> Counters:
        """Read the counters and start them again."""
        values = (ctypes.c_uint64 * len(Counters._fields))()
        self.library.pyrf_emulator_counters(values)
        return Counters(*values)

    def call(self, op: str, arrays: dict[str, np.ndarray], *arguments: Any) -> None:
        """Call an op with ctypes arguments while its arrays are registered."""
        for name, x in arrays.items():
            low, high = np.lib.array_utils.byte_bounds(x)
            self.library.pyrf_emulator_register(
                ctypes.c_void_p(low), ctypes.c_uint64(high - low), name.encode()
            )
        status = getattr(self.library, f"pyrf_{op}")(*arguments)
        self.library.pyrf_emulator_forget()
        if status:
            raise (RefusedError if status == 1 else FailedError)(self.library.pyrf_last_error().decode())

    def run(self, op: str, dtype: str, **arguments: np.ndarray | float | None) -> None:
        """Call an op by the names of its arguments in pyrf.h, all but the stream; None is a null tensor.

        Args:
            op: its name.
            dtype: of the uint16 arrays.
            arguments: arrays and numbers.
        """
        names = list(signatures()[op])[:-1]
        assert set(arguments) == set(names), f"{op} takes {names}, got {list(arguments)}"
        values = [arguments[name] for name in names]
        arrays = {name: x for name, x in arguments.items() if isinstance(x, np.ndarray)}
        self.call(op, arrays, *(_as_c(x, dtype) for x in values), None)


def _as_c(x: np.ndarray | float | None, dtype: str) -> View | float:
    if x is None:
        return View()
    if not isinstance(x, np.ndarray):
        return x
    number = DTYPES[{"uint16": dtype, "uint8": "e4m3"}.get(x.dtype.name, x.dtype.name)]
    return View.of(x.ctypes.data, number, x.shape, [stride // x.itemsize for stride in x.strides])
