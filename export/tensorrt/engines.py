"""From an exported folder to its engines: those in the cache, refitted ones, and what must be built."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrf.export.errors import ExportError
from pyrf.export.manifest import Manifest
from pyrf.export.options import Report
from pyrf.export.tensorrt.builder import TIME_LIMIT, WORKER, BuildReport, BuildRequest, build_engine
from pyrf.export.tensorrt.cache import EngineCache, EngineKey

ENGINES = "engines"
"""Folder of the engines inside an exported folder."""


def arch_of(compute_capability: str) -> str:
    """nvcc's name of an architecture: "9.0" is 90a, with the instructions that only it has."""
    name = compute_capability.replace(".", "")
    return f"{name}a" if name == "90" else name


@dataclass(frozen=True)
class EngineTarget:
    """The TensorRT and the GPU that engines are for.

    Attributes:
        runtime: package and version.
        compute_capability: "9.0".
    """

    runtime: str
    compute_capability: str

    @classmethod
    def of(cls, trt: Any, compute_capability: str) -> EngineTarget:
        """Of the package tensorrt in use, and a GPU."""
        return cls(f"{trt.__name__} {trt.__version__}", compute_capability)


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built.

    Attributes:
        refittable, optimization_level: see `BuildRequest`.
        plugin: put pyrf's attention kernel where the graph has ring attention.
        device: index of the GPU to build on.
        time_limit: seconds for one engine.
        worker: see `build_engine`.
    """

    refittable: bool = False
    plugin: bool = False
    optimization_level: int = 3
    device: int = 0
    time_limit: float = TIME_LIMIT
    worker: Sequence[str] = WORKER


class EngineFolder:
    """The engines of an exported folder, for one target.

    Args:
        folder: the exported graphs.
        manifest: theirs.
        target: what the engines are for.
        options: how they are built.
        report: told in one line what happens.

    Raises:
        ExportError: when an option does not go with the export's precision.

    Attributes:
        cache: where the engines are.
        built: reports of what was built by this object, by graph.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        target: EngineTarget,
        options: BuildOptions | None = None,
        report: Report = lambda _: None,
    ) -> None:
        self.folder, self.manifest, self.target = Path(folder), manifest, target
        self.options = options or BuildOptions()
        if manifest.precision and self.options.plugin:
            raise ExportError(
                f"the attention plugin takes no cache in e4m3, got precision {manifest.precision}; "
                "leave the plugin out"
            )
        self.report = report
        self.cache = EngineCache(self.folder / ENGINES, report)
        self.built: dict[str, BuildReport] = {}

    def key(self, graph: str) -> EngineKey:
        """What the engine of a graph depends on.

        Raises:
            ExportError: when the folder has no such graph.
        """
        manifest = self.manifest
        if graph not in manifest.graphs:
            raise ExportError(
                f"{self.folder} has no graph {graph!r}; export the bundle again, with all parts"
            )
        stream = manifest.stream
        return EngineKey(
            graph=graph,
            structure=manifest.files[manifest.graphs[graph].file][1],
            weights=manifest.weights,
            dtype="+".join([manifest.dtype, *(["fp8"] * manifest.fp8), *filter(None, [manifest.precision])]),
            geometry=(
                f"{manifest.size.height} x {manifest.size.width} latents, chunk {stream.chunk_frames}, "
                f"window {stream.window_frames}"
            ),
            runtime=self.target.runtime,
            compute_capability=self.target.compute_capability,
            flags=self.request(graph, "").flags,
        )

    def request(self, graph: str, plan: str, refit: str | None = None) -> BuildRequest:
        """How the engine of a graph is built, to a path."""
        spec, options = self.manifest.graphs[graph], self.options
        has_length = any(tensor.name == "length" for tensor in spec.inputs)
        return BuildRequest(
            onnx=str(self.folder / spec.file),
            plan=plan,
            # The plugin reads the length on the device, so it is no shape.
            lengths=self.manifest.lengths if has_length and not options.plugin else (),
            timing_cache=str(self.cache.folder / f"timing-{self.target.compute_capability}.cache"),
            refit=refit,
            refittable=options.refittable,
            plugin=arch_of(self.target.compute_capability) if options.plugin and has_length else "",
            narrow_cache=has_length and self.manifest.precision is not None,
            optimization_level=options.optimization_level,
            device=options.device,
        )

    def engine(self, graph: str) -> bytes:
        """The engine of a graph: from the cache, else refitted from one with other weights, else built.

        Raises:
            BuildError: when TensorRT cannot make it.
        """
        key = self.key(graph)
        engine = self.cache.load(key)
        if engine is None:
            engine = self._make(graph, key)
            self.cache.store(key, engine)
        return engine

    def _make(self, graph: str, key: EngineKey) -> bytes:
        self.cache.folder.mkdir(parents=True, exist_ok=True)
        # TensorRT would refit from the graph as it lies on disk, not as it was parsed.
        refit = self.options.refittable and not self.options.plugin and self.manifest.precision is None
        relative = self.cache.relative(key) if refit else None
        with tempfile.TemporaryDirectory(prefix=".build-", dir=self.cache.folder) as folder:
            plan, old = Path(folder) / "plan", Path(folder) / "old"
            if relative is not None:
                old.write_bytes(relative)
            self.report(f"{graph}: {'built' if relative is None else 'refitted'} with {key.runtime}")
            self.built[graph] = build_engine(
                self.request(graph, str(plan), None if relative is None else str(old)),
                worker=self.options.worker,
                time_limit=self.options.time_limit,
            )
            return plan.read_bytes()
