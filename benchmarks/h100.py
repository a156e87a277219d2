"""TensorRT beside torch on one GPU, in one run: parity first, then frames per second. For an H100, run once.

    python benchmarks/h100.py Wan-AI/Wan2.1-T2V-1.3B-Diffusers --student rewardforcing.pt | tee h100.json

Ways to compute one model in bfloat16: torch as it is; its calls replayed from CUDA graphs; the same compiled
by torch.compile; TensorRT. They take turns, chunk by chunk, so that clocks and heat are the same for all.
Denoise-only is the four denoise calls, the clean call and the sink update of a chunk, waited for; end to end
is from asking for a chunk to its uint8 frames on the host (TensorRT makes the next chunk meanwhile). The
warm-up fills the window.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrf.backends.base import Backend
from pyrf.backends.torch.backend import TorchBackend
from pyrf.backends.torch.rollout import TorchRollout
from pyrf.bundle import load_bundle
from pyrf.config import LatentSize
from pyrf.loop.held import Timestep
from pyrf.machine import percentile
from pyrf.models.codecs.codec import latent_size
from pyrf.models.dit.model import PromptCache
from pyrf.pipeline import StreamingPipeline

PROMPT = "a red circle moves right"
PARITY_CHUNKS = 8
BACKENDS = ("torch", "graph", "compile", "tensorrt", "plugin")
"""torch as it is; captured; compiled and captured; TensorRT; TensorRT with pyrf's attention (needs nvcc)."""

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
Capture = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]
"""Records a call: what replays it, and the result that every replay writes anew."""


def as_it_is(call: Callable[..., Any]) -> Callable[..., Any]:
    return call


def compile_whole(call: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(call, mode="max-autotune-no-cudagraphs", dynamic=False)


def capture_on_gpu(call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result


class CapturedTorchRollout(TorchRollout):
    """The torch backend with its calls captured, each into a CUDA graph at its second run.

    Args:
        wrap: prepares a function, as by compiling it.
        capture: records a call.
    """

    def __init__(
        self,
        backend: TorchBackend,
        batch: int,
        size: LatentSize,
        prompt_embeds: Tensor,
        *,
        wrap: Wrap,
        capture: Capture,
    ) -> None:
        self._fixed: PromptCache | None = None
        super().__init__(backend.model, backend.stream, batch, size, prompt_embeds, backend.cache_dtype)
        self._forward, self._write_cache = wrap(self.model.forward), wrap(self.model.write_cache)
        self._capture = capture
        self._latents = torch.zeros(batch, *self.shape, device=self.device)
        self._calls: dict[tuple[object, ...], tuple[Callable[[], None], Any] | None] = {}

    def _encode_prompt(self, prompt_embeds: Tensor) -> None:
        super()._encode_prompt(prompt_embeds)
        if self._fixed is None:
            self._fixed = PromptCache(*(tuple(x.clone() for x in part) for part in self.prompt))
        for fixed, new in zip(self._fixed, self.prompt):
            for to, source in zip(fixed, new):
                to.copy_(source)
        self.prompt = self._fixed

    def _run(self, key: tuple[object, ...], call: Callable[[], Any]) -> Any:
        if key not in self._calls:
            self._calls[key] = None
            return call()
        recorded = self._calls[key]
        if recorded is None:
            recorded = self._calls[key] = self._capture(call)
        recorded[0]()
        return recorded[1]

    def _set(self, latents: Tensor) -> int:
        """Fill in what a call reads; the cache's length, which is fixed in a graph."""
        self._latents.copy_(latents)
        self.rope.at(self.cache.frame_positions)
        return self.cache.length

    def _predict(self, latents: Tensor, timestep: Timestep) -> Tensor:
        length, time = self._set(latents), self.time(timestep)
        call = partial(self._forward, self._latents, time, self.prompt, attention=self.attention)
        return self._run(("denoise", timestep, length), call).clone()

    def _write(self, latents: Tensor) -> None:
        length, time = self._set(latents), self.time(0.0)
        call = partial(self._write_cache, self._latents, time, self.prompt, attention=self.attention)
        self._run(("clean", length), call)


class CapturedTorchBackend(TorchBackend):
    """See `CapturedTorchRollout`."""

    def __init__(self, backend: TorchBackend, wrap: Wrap, capture: Capture = capture_on_gpu) -> None:
        super().__init__(backend.model, backend.codec, backend.stream, backend.merged, backend.cache_dtype)
        self._wrap, self._capture = wrap, capture

    def open(self, batch: int, size: LatentSize, prompt_embeds: Tensor) -> TorchRollout:
        return CapturedTorchRollout(self, batch, size, prompt_embeds, wrap=self._wrap, capture=self._capture)


def load(name: str, model: str, **options: Any) -> StreamingPipeline:
    """A pipeline of one of `BACKENDS`."""
    exported = options.pop("exported")
    if name == "tensorrt":
        return StreamingPipeline.from_pretrained(model, backend=name, exported=exported, **options)
    pipe = StreamingPipeline.from_pretrained(model, **options)
    if name == "plugin":
        from pyrf.backends.tensorrt.backend import TensorRTBackend, plans_on_gpu
        from pyrf.backends.tensorrt.cuda import CudaDevice
        from pyrf.export.tensorrt.engines import BuildOptions
        from pyrf.export.tensorrt.library import load_tensorrt

        opened = plans_on_gpu(load_tensorrt(), CudaDevice(pipe.device), BuildOptions(plugin=True))
        bundle = load_bundle(model, student=options["student"])
        use_backend(
            pipe,
            TensorRTBackend(bundle, pipe.codec, dtype=pipe.dtype, open_plans=opened, exported=exported),
        )
    if name in ("graph", "compile"):
        assert isinstance(pipe.model.backend, TorchBackend)
        wrap = as_it_is if name == "graph" else compile_whole
        use_backend(pipe, CapturedTorchBackend(pipe.model.backend, wrap))
    return pipe


def use_backend(pipe: StreamingPipeline, backend: Backend) -> None:
    """Let another backend compute the pipeline's next streams."""
    pipe.model = replace(pipe.model, backend=backend)


def synchronize(pipe: StreamingPipeline) -> None:
    if pipe.device.type == "cuda":
        torch.cuda.synchronize(pipe.device)


@torch.inference_mode()
def latent_chunks(pipe: StreamingPipeline) -> Callable[[], Tensor]:
    """A stream of latents from PROMPT and seed 0, a chunk per call."""
    size = latent_size(pipe.height, pipe.width, pipe.codec)
    loop = pipe.model.backend.open(1, size, pipe.text_encoder.encode([PROMPT])).loop([0])

    def next_chunk() -> Tensor:
        with torch.inference_mode():
            latents = loop.next_chunk()
        synchronize(pipe)
        return latents

    return next_chunk


def parity(pipes: dict[str, StreamingPipeline], chunks: int = PARITY_CHUNKS) -> dict[str, list[float]]:
    """For every pipeline but the first: relative distance of each chunk's latents to the first's."""
    first, *others = pipes
    streams = {name: latent_chunks(pipe) for name, pipe in pipes.items()}
    errors: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(chunks):
        made = {name: chunk().float() for name, chunk in streams.items()}
        for name in others:
            errors[name].append(((made[name] - made[first]).norm() / made[first].norm()).item())
    return errors


def time_in_turns(
    calls: dict[str, Callable[[], object]], warm_up: int, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each call of each peer."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(warm_up + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= warm_up:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def summary(times: dict[str, list[float]], frames: int) -> dict[str, dict[str, float]]:
    """Frames per second at the median chunk, and its percentiles in milliseconds."""
    return {
        name: {
            "fps": 1e3 * frames / statistics.median(values),
            "p50_ms": statistics.median(values),
            "p99_ms": percentile(values, 99),
        }
        for name, values in times.items()
    }


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    lines = [f"{title:28}{'FPS':>8}{'p50 ms':>10}{'p99 ms':>10}"]
    lines += [f"{name:28}{r['fps']:8.1f}{r['p50_ms']:10.1f}{r['p99_ms']:10.1f}" for name, r in rows.items()]
    return "\n".join(lines)


def measure(pipes: dict[str, StreamingPipeline], *, warm_up: int, repeats: int) -> dict[str, Any]:
    """Parity and times of several pipelines of one model, the first the reference."""
    pipe = next(iter(pipes.values()))
    frames = pipe.model.frames_in_chunk
    errors = parity(pipes)
    denoise = time_in_turns({name: latent_chunks(p) for name, p in pipes.items()}, warm_up, repeats)
    streams = {name: p.stream(PROMPT, seed=0) for name, p in pipes.items()}
    whole = time_in_turns({name: stream.__next__ for name, stream in streams.items()}, warm_up, repeats)
    for stream in streams.values():
        stream.close()
    return {
        "latents_relative_error": errors,
        "frames_a_chunk": frames,
        "denoise_only": summary(denoise, frames),
        "end_to_end": summary(whole, frames),
    }


def environment() -> dict[str, str]:
    """The GPU, and the versions of what may run on it."""
    tensorrt = find_spec("tensorrt") and import_module("tensorrt").__version__
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "tensorrt": tensorrt or "not installed",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--student")
    parser.add_argument("--exported", type=Path, help="a folder of pyrf export --to tensorrt")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS[:4])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--chunks", type=int, default=100, help="timed chunks of each")
    parser.add_argument("--warm-up", type=int, default=10, help="chunks of each before; at least the window")
    arguments = parser.parse_args()
    options = {"student": arguments.student, "exported": arguments.exported}
    pipes = {}
    loaded_s = {}
    for name in arguments.backends:
        start = time.perf_counter()
        pipes[name] = load(name, arguments.model, dtype=arguments.dtype, device=arguments.device, **options)
        loaded_s[name] = time.perf_counter() - start
        print(f"{name}: loaded in {loaded_s[name]:.1f} s", file=sys.stderr)
    result = measure(pipes, warm_up=arguments.warm_up, repeats=arguments.chunks)
    for name, errors in result["latents_relative_error"].items():
        print(f"{name}: latents differ by {errors[0]:.1e} .. {errors[-1]:.1e} of their size", file=sys.stderr)
    for name in ("denoise_only", "end_to_end"):
        print(table(name.replace("_", " "), result[name]), file=sys.stderr)
    pipe = next(iter(pipes.values()))
    method = {"model": arguments.model, "size": [pipe.height, pipe.width], "dtype": arguments.dtype}
    counts = {"warm_up": arguments.warm_up, "chunks": arguments.chunks, "load_s": loaded_s}
    print(json.dumps({**environment(), **method, **counts, **result}))


if __name__ == "__main__":
    main()
