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
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "emulator"

COMPILER = os.environ.get("CXX", "g++")
FLAGS = ("-std=c++17", "-march=native", "-ffp-contract=off", "-fPIC", "-DPYRF_EMULATE")
FLAGS += ("-Wall", "-Wextra", "-Wno-unknown-pragmas")

KERNELS = ("add_norm", "ema_sink_update", "norm_rope_append", "ring_attention")
DTYPES = {"bf16": 0, "fp16": 1}
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


def _strides(x: np.ndarray | None) -> Any:
    if x is None:
        return None
    return (ctypes.c_int64 * x.ndim)(*(stride // x.itemsize for stride in x.strides))


def _pointer(x: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.ctypes.data)


class Emulator:
    """The C interface on numpy arrays; 16-bit floats are uint16 arrays.

    Every array given to an op is registered, so that an access outside them is an error.
    """

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.pyrf_last_error.restype = ctypes.c_char_p
        self.configure(0, 0)

    def configure(self, schedule: int, copy_mode: int, seed: int = 1) -> None:
        """Choose how the next launches run, by index into SCHEDULES and COPY_MODES."""
        self.library.pyrf_emulator_configure(schedule, ctypes.c_uint64(seed), copy_mode)

    def counters(self) -> Counters:
        """Read the counters and start them again."""
        values = (ctypes.c_uint64 * len(Counters._fields))()
        self.library.pyrf_emulator_counters(values)
        return Counters(*values)

    def call(self, op: str, arrays: dict[str, np.ndarray | None], *arguments: Any) -> None:
        """Call an op with ctypes arguments while its arrays are registered."""
        for name, x in arrays.items():
            if x is not None:
                low, high = np.lib.array_utils.byte_bounds(x)
                self.library.pyrf_emulator_register(
                    ctypes.c_void_p(low), ctypes.c_uint64(high - low), name.encode()
                )
        status = getattr(self.library, f"pyrf_{op}")(*arguments)
        self.library.pyrf_emulator_forget()
        if status:
            raise (RefusedError if status == 1 else FailedError)(self.library.pyrf_last_error().decode())

    def add_norm(
        self,
        y: np.ndarray,
        residual: np.ndarray | None,
        gate: np.ndarray | None,
        bias: np.ndarray | None,
        weight: np.ndarray | None,
        shift: np.ndarray | None,
        eps: float,
        rms: bool,
        silu: bool,
        total: np.ndarray | None,
        normed: np.ndarray | None,
        dtype: str,
    ) -> None:
        """See pyrf.h, where `total` is `sum`; shapes are taken from the arrays."""
        inputs = {"y": y, "residual": residual, "gate": gate, "bias": bias, "weight": weight, "shift": shift}
        outputs = {"sum": total, "normed": normed}
        self.call(
            "add_norm",
            inputs | outputs,
            DTYPES[dtype],
            *map(_pointer, inputs.values()),
            ctypes.c_double(eps),
            ctypes.c_int(rms),
            ctypes.c_int(silu),
            *map(_pointer, outputs.values()),
            *map(ctypes.c_int64, y.shape),
            None,
        )

    def ema_sink_update(
        self,
        keys: np.ndarray,
        values: np.ndarray,
        key_master: np.ndarray,
        value_master: np.ndarray | None,
        slot: np.ndarray,
        turn: np.ndarray,
        tokens: int,
        alpha: float,
        dtype: str,
    ) -> None:
        """See pyrf.h; shapes are taken from the arrays."""
        arrays = {"keys": keys, "values": values, "key_master": key_master, "value_master": value_master}
        strided = [part for x in arrays.values() for part in (_pointer(x), _strides(x))]
        sizes = (*keys.shape[:3], tokens, keys.shape[3], len(turn))
        self.call(
            "ema_sink_update",
            {**arrays, "slot": slot, "turn": turn},
            DTYPES[dtype],
            *strided,
            _pointer(slot),
            _pointer(turn),
            *map(ctypes.c_int64, sizes),
            ctypes.c_double(alpha),
            None,
        )

    def norm_rope_append(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        norm_q: np.ndarray,
        norm_k: np.ndarray,
        eps: float,
        rope: np.ndarray,
        slot: np.ndarray,
        keys: np.ndarray,
        values: np.ndarray,
        q_out: np.ndarray,
        dtype: str,
    ) -> None:
        """See pyrf.h; shapes are taken from the arrays."""
        arrays = {"q": q, "k": k, "v": v, "norm_q": norm_q, "norm_k": norm_k, "rope": rope, "slot": slot}
        arrays |= {"keys": keys, "values": values, "q_out": q_out}
        batch, heads, capacity, head_dim = keys.shape
        self.call(
            "norm_rope_append",
            arrays,
            DTYPES[dtype],
            *(part for x in (q, k, v) for part in (_pointer(x), _strides(x))),
            _pointer(norm_q),
            _pointer(norm_k),
            ctypes.c_double(eps),
            _pointer(rope),
            _pointer(slot),
            *(part for x in (keys, values) for part in (_pointer(x), _strides(x))),
            _pointer(q_out),
            *map(ctypes.c_int64, (batch, heads, capacity, q.shape[1], head_dim)),
            None,
        )

    def ring_attention(
        self, q: np.ndarray, keys: np.ndarray, values: np.ndarray, out: np.ndarray, length: int, dtype: str
    ) -> None:
        """See pyrf.h; shapes are taken from the arrays."""
        batch, heads, capacity, head_dim = keys.shape
        self.call(
            "ring_attention",
            {"q": q, "keys": keys, "values": values, "out": out},
            DTYPES[dtype],
            *(part for x in (q, keys, values) for part in (_pointer(x), _strides(x))),
            _pointer(out),
            *map(ctypes.c_int64, (batch, heads, capacity, q.shape[2], length, head_dim)),
            None,
        )
