"""Builds one engine from an ONNX graph, in a process of its own: TensorRT may abort, hang or eat all memory.

`build_engine` starts the process and judges its end; `main` is what runs there:

    python -m pyrf.export.tensorrt.builder < request.json

The builder is handed its `tensorrt` module, so that tests can hand it TensorRT-RTX, which needs no GPU.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyrf.export.errors import ExportError
from pyrf.export.tensorrt.library import make_logger, tensorrt_on
from pyrf.extras import MissingExtraError
from pyrf.files import whole_file

WORKER = (sys.executable, "-m", "pyrf.export.tensorrt.builder")
TIME_LIMIT = 3600.0
"""Seconds. A 14B network takes minutes; beyond an hour something hangs."""
UNUSED = "Unused Input"
"""What TensorRT says of an input that it parsed and then ignores, `nonpad_kv_seqlen` among them."""

WIDEST_FUSED_HEAD = 256
"""Channels of a head beyond which TensorRT has no fused attention."""


class BuildError(ExportError):
    """TensorRT could not make an engine of a graph."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        onnx: path of the graph; its weights are found beside it.
        plan: path to write the engine to.
        lengths: values of the input `length`, a profile each; none for graphs without it.
        timing_cache: path of a file of measured tactics, read when it is there and written at the end.
        refit: path of an engine that differs in the weights alone: put the new ones into it.
        refittable: keep weights replaceable, at some cost in speed.
        plugin: architecture, as nvcc names it, of pyrf's attention kernel; empty: TensorRT's own attention.
        narrow_cache: whether the graph has attention over a cache in e4m3.
        optimization_level: 0..5; higher builds longer and may run faster.
        device: index of the GPU to build on.
    """

    onnx: str
    plan: str
    lengths: tuple[int, ...] = ()
    timing_cache: str | None = None
    refit: str | None = None
    refittable: bool = False
    plugin: str = ""
    narrow_cache: bool = False
    optimization_level: int = 3
    device: int = 0

    @property
    def flags(self) -> tuple[str, ...]:
        """The options that an engine depends on."""
        chosen = [f"level{self.optimization_level}"]
        chosen += [name for name in ("plugin", "refittable") if getattr(self, name)]
        return tuple(chosen)


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        runtime: version of TensorRT.
        seconds: of parsing and building.
        layers: number of layers of each kind in the parsed network.
        warnings: lines of TensorRT's log, those that repeat left out.
        size: bytes of the engine.
    """

    runtime: str
    seconds: float
    layers: dict[str, int]
    warnings: list[str]
    size: int


def build_engine(
    request: BuildRequest, *, worker: Sequence[str] = WORKER, time_limit: float = TIME_LIMIT
) -> BuildReport:
    """Build an engine in a process of its own; `request.plan` then holds it.

    Args:
        request: what to build.
        worker: command that reads a request as JSON and writes a report as JSON to the path it is given last.
        time_limit: seconds.

    Raises:
        BuildError: when it fails, crashes or takes too long; in one line.
    """
    name = Path(request.onnx).name
    with tempfile.TemporaryDirectory(prefix="pyrf-build-") as folder:
        answer = Path(folder) / "answer.json"
        try:
            run = subprocess.run(
                [*worker, str(answer)],
                input=json.dumps(asdict(request)),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=time_limit,
            )
        except subprocess.TimeoutExpired:
            raise BuildError(
                f"{name}: TensorRT was still building after {time_limit:.0f} s and was ended; "
                "lower the optimization level, or allow more time"
            ) from None
        if not answer.exists():
            raise BuildError(f"{name}: {_last_words(run)}")
        values = json.loads(answer.read_text())
    if "error" in values:
        raise BuildError(f"{name}: {values['error']}")
    return BuildReport(**values)


def _last_words(run: subprocess.CompletedProcess[str]) -> str:
    """How a process ended that left no answer."""
    lines = run.stderr.strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    if run.returncode == -9:
        return "the builder was killed, as when memory runs out; free some, or export a smaller geometry"
    return f"the builder ended with code {run.returncode}: {last}"


Configure = Callable[[Any, Any], None]
"""Last say over the builder's config: takes the tensorrt module and the config."""


def main(
    trt: Any = None, configure: Configure = lambda trt, config: None, arguments: Sequence[str] | None = None
) -> None:
    """Do the request that stands on standard input, and write a report or an error to the path given."""
    answer = Path((sys.argv[1:] if arguments is None else arguments)[-1])
    values = json.loads(sys.stdin.read())
    request = BuildRequest(**{**values, "lengths": tuple(values["lengths"])})
    try:
        module = tensorrt_on(request.device) if trt is None else trt
        result: dict[str, Any] = asdict(_Build(module, request, configure).run())
    except (ExportError, MissingExtraError) as error:
        result = {"error": str(error)}
    with whole_file(answer) as temporary:
        temporary.write_text(json.dumps(result))


class _Build:
    """One build, with what it leaves in TensorRT's log."""

    def __init__(self, trt: Any, request: BuildRequest, configure: Configure) -> None:
        self.trt, self.request, self.configure = trt, request, configure
        self.logger, self.lines = make_logger(trt)

    def run(self) -> BuildReport:
        start = time.perf_counter()
        if self.request.refit is not None:
            layers: dict[str, int] = {}
            memory = self._refit(Path(self.request.refit).read_bytes())
        else:
            layers, memory = self._build()
        plan = memoryview(memory)
        ignored = [line for line in self.lines if line.startswith(UNUSED)]
        if ignored:
            raise BuildError(f"TensorRT ignores inputs of the graph: {'; '.join(ignored)}")
        with whole_file(self.request.plan) as temporary:
            temporary.write_bytes(plan)
        seconds = time.perf_counter() - start
        warnings = list(dict.fromkeys(self.lines))
        return BuildReport(self.trt.__version__, seconds, layers, warnings, plan.nbytes)

    def _build(self) -> tuple[dict[str, int], Any]:
        trt = self.trt
        builder = trt.Builder(self.logger)
        # Newer releases know no other kind of network, and then may not have the flag.
        wanted = ["STRONGLY_TYPED", *(["PREFER_AOT_PYTHON_PLUGINS"] if self.request.plugin else [])]
        flags = [getattr(trt.NetworkDefinitionCreationFlag, name, None) for name in wanted]
        network = builder.create_network(sum(1 << int(flag) for flag in flags if flag is not None))
        parser = trt.OnnxParser(network, self.logger)
        if not self._parse(parser):
            first = parser.get_error(0)
            raise BuildError(f"TensorRT does not take node {first.node_name() or '?'}: {first.desc()}")
        self._allow_wide_heads(network)
        config = builder.create_builder_config()
        self._set_profiles(builder, config)
        config.builder_optimization_level = self.request.optimization_level
        if self.request.refittable:
            config.set_flag(trt.BuilderFlag.REFIT)
        self.configure(trt, config)
        timings = self._load_timings(config)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildError(f"TensorRT built nothing: {self._last_error()}")
        self._save_timings(timings, config)
        kinds = Counter(network.get_layer(i).type.name for i in range(network.num_layers))
        return dict(sorted(kinds.items())), plan

    def _parse(self, parser: Any) -> bool:
        path = Path(self.request.onnx)
        if self.request.narrow_cache:
            from pyrf.export.tensorrt.narrow import fuse_attention

            return bool(parser.parse(fuse_attention(path), str(path)))  # weights lie beside the path
        if not self.request.plugin:
            return bool(parser.parse_from_file(str(path)))
        from pyrf.export.tensorrt.plugin import compile_ptx, name_plugin, register

        plugin = importlib.import_module(f"{self.trt.__name__}.plugin")
        register(plugin, compile_ptx(self.request.plugin))
        return bool(parser.parse(name_plugin(path), str(path)))

    def _allow_wide_heads(self, network: Any) -> None:
        """Let attention be taken apart where no fused kernel can be: in the Wan VAE, a head of 384.

        Elsewhere a build fails rather than that it becomes slow.
        """
        for layer in (network.get_layer(i) for i in range(network.num_layers)):
            if layer.type.name == "ATTENTION_OUTPUT":
                layer.__class__ = self.trt.IAttentionOutputLayer  # TensorRT's way of a downcast in Python
                attention = layer.attention
                if attention.get_input(0).shape[-1] > WIDEST_FUSED_HEAD:
                    attention.decomposable = True

    def _set_profiles(self, builder: Any, config: Any) -> None:
        """A profile for each length, fixed to it, so that every attention is compiled for its own shape."""
        for length in self.request.lengths:
            profile = builder.create_optimization_profile()
            profile.set_shape_input("length", [length], [length], [length])
            config.add_optimization_profile(profile)

    def _load_timings(self, config: Any) -> Any:
        path = self.request.timing_cache
        if path is None:
            return None
        known = Path(path).read_bytes() if Path(path).exists() else b""
        timings = config.create_timing_cache(known)
        if not config.set_timing_cache(timings, ignore_mismatch=False):  # made on another device or version
            timings = config.create_timing_cache(b"")
            config.set_timing_cache(timings, ignore_mismatch=False)
        return timings

    def _save_timings(self, timings: Any, config: Any) -> None:
        if self.request.timing_cache is not None and timings is not None:
            with whole_file(self.request.timing_cache) as temporary:
                temporary.write_bytes(config.get_timing_cache().serialize())

    def _refit(self, plan: bytes) -> Any:
        """Put the graph's weights into an engine built for others. Needs the GPU."""
        trt = self.trt
        engine = trt.Runtime(self.logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildError(f"TensorRT does not load the engine to refit: {self._last_error()}")
        refitter = trt.Refitter(engine, self.logger)
        if not trt.OnnxParserRefitter(refitter, self.logger).refit_from_file(self.request.onnx):
            raise BuildError(f"TensorRT does not refit: {self._last_error()}")
        if not refitter.refit_cuda_engine():
            raise BuildError(f"TensorRT misses weights to refit: {refitter.get_missing_weights()}")
        return engine.serialize()

    def _last_error(self) -> str:
        return self.lines[-1] if self.lines else "it gives no reason"


if __name__ == "__main__":
    main()
