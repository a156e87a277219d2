"""Built engines on disk: one file for each set of things that an engine depends on.

A file is a line that names the format, the length of a header, the header and the engine. The header is
JSON: the whole key, and size and SHA-256 of the engine. What does not match is never handed to TensorRT.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyrf.export.options import Report
from pyrf.files import whole_file

MAGIC = b"pyrf engine 1\n"
SUFFIX = ".engine"


class DamagedEngineError(ValueError):
    """An engine file is truncated, altered, or not pyrf's."""


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        graph: its name in `pyrf.export.manifest.GRAPHS`.
        structure: SHA-256 of the .onnx file: the geometry, and all but the large weights.
        weights: fingerprint of the weights.
        dtype: of the weights and the cache; "+fp8" where products are float8, "+fp8-attention" where the
            cache is.
        geometry: sizes that the engine is fixed to, for people to read.
        runtime: package and version, "tensorrt 10.16.1".
        compute_capability: "9.0".
        flags: options of the build, sorted.
    """

    graph: str
    structure: str
    weights: str
    dtype: str
    geometry: str
    runtime: str
    compute_capability: str
    flags: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """Digest of everything but the weights: what refitting keeps."""
        return _digest({**asdict(self), "weights": ""})

    @property
    def file(self) -> str:
        """Name of the engine's file."""
        return f"{self.graph}-{self.family[:16]}-{self.weights[:16]}{SUFFIX}"


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class EngineCache:
    """A folder of engines; processes may share it.

    Args:
        folder: made when the first engine is stored.
        report: told when a file is damaged or foreign, and why an engine is built.
    """

    def __init__(self, folder: str | Path, report: Report = lambda _: None) -> None:
        self.folder, self.report = Path(folder), report

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key is, or will be."""
        return self.folder / key.file

    def load(self, key: EngineKey) -> bytes | None:
        """The engine of a key, or None. A damaged or foreign file is reported, and counts as none."""
        path = self.path(key)
        try:
            found, engine = read_engine(path)
        except FileNotFoundError:
            return None
        except (DamagedEngineError, OSError) as error:
            self.report(f"{error}; it is built again")
            return None
        if found != key:
            self.report(f"{path} was built for {_difference(found, key)}; it is built again")
            return None
        return engine

    def relative(self, key: EngineKey) -> bytes | None:
        """The newest engine that differs in the weights alone, to be refitted; None when there is none."""
        paths = self.folder.glob(f"{key.graph}-{key.family[:16]}-*{SUFFIX}")
        for path in sorted(paths, key=lambda p: p.stat().st_mtime, reverse=True):
            try:
                found, engine = read_engine(path)
            except (DamagedEngineError, OSError):
                continue
            if found.family == key.family:
                return engine
        return None

    def store(self, key: EngineKey, engine: bytes) -> Path:
        """Write an engine, whole or not at all."""
        header = {"key": asdict(key), "size": len(engine), "sha256": hashlib.sha256(engine).hexdigest()}
        text = json.dumps(header).encode()
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path(key)) as temporary, temporary.open("wb") as file:
            file.writelines((MAGIC, len(text).to_bytes(4, "little"), text, engine))
        return self.path(key)


def read_engine(path: Path) -> tuple[EngineKey, bytes]:
    """Read a file that `EngineCache.store` wrote.

    Raises:
        FileNotFoundError: when there is none.
        DamagedEngineError: when it is truncated, altered, or of another kind.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise DamagedEngineError(f"{path} is not an engine of this pyrf")
        length = int.from_bytes(file.read(4), "little")
        text = file.read(length)
        engine = file.read()
    try:
        header = json.loads(text)
        key = EngineKey(**{**header["key"], "flags": tuple(header["key"]["flags"])})
        size, digest = int(header["size"]), str(header["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedEngineError(f"{path} has a damaged header") from error
    if len(engine) != size:
        raise DamagedEngineError(f"{path} holds {len(engine)} bytes of an engine instead of {size}")
    if hashlib.sha256(engine).hexdigest() != digest:
        raise DamagedEngineError(f"{path} is damaged (its SHA-256 has changed)")
    return key, engine


def _difference(found: EngineKey, wanted: EngineKey) -> str:
    """The first thing in which two keys differ, in words."""
    for name, value in asdict(found).items():
        if value != asdict(wanted)[name]:
            return f"{name.replace('_', ' ')} {value}, not {asdict(wanted)[name]}"
    return "the same"
