"""`pyrf doctor`: what is installed, what it can run on, and whether the whole chain works."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import NamedTuple

from pyrf import printing
from pyrf.extras import DISTRIBUTION, install_hint
from pyrf.machine import available_cpus, processor
from pyrf.memory.bill import Bill

FOR_DEVELOPMENT = ("test", "dev")
"""Extras that no user of pyrf needs."""
TORCH_ATTENTION = "torch's scaled_dot_product_attention"


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, whether it works, and what was found.

    Attributes:
        bill: of the model's memory, which takes lines of its own.
    """

    name: str
    ok: bool
    detail: str
    bill: Bill | None = None

    @property
    def key(self) -> str:
        """Its name in JSON, which does not depend on the model."""
        return "model" if self.name.startswith("model ") else self.name.replace(" ", "_")


class Loading(NamedTuple):
    """How the model is loaded, as by `StreamingPipeline.from_pretrained`."""

    dtype: str = "float32"
    device: str = "cpu"
    backend: str = "torch"
    max_memory: str | None = None


def examine(model: str, how: Loading | None = None) -> Iterator[Finding]:
    """Look at everything a stream needs, one finding at a time; a failure stops none of the later ones."""
    how = how or Loading()
    checks: dict[str, Callable[[], str | tuple[str, Bill | None]]] = {
        "pyrf": _pyrf,
        "packages": _packages,
        "optional packages": _optional_packages,
        "native module": _native,
        "torch": _torch,
        "cpus": _cpus,
        "cuda": _cuda,
        "attention": _attention,
        "video codecs": _video_codecs,
        "memory": lambda: _memory(model, how),
        f"model {model}": lambda: _model(model, how),
    }
    for name, check in checks.items():
        try:
            found = check()
            yield Finding(name, True, found) if isinstance(found, str) else Finding(name, True, *found)
        except Exception as error:
            yield Finding(name, False, " ".join(f"{type(error).__name__}: {error}".split()))


def _pyrf() -> str:
    from pyrf import __version__

    return f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _requirements() -> Iterator[tuple[str, str]]:
    """Name and extra ("" for what is always needed) of each package that pyrf's metadata asks for."""
    for line in requires(DISTRIBUTION) or ():
        requirement, _, condition = line.partition(";")
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if name != DISTRIBUTION:
            yield name, "".join(re.findall(r"extra == ['\"](.+?)['\"]", condition))


def _packages() -> str:
    return ", ".join(f"{name} {version(name)}" for name, extra in _requirements() if not extra)


def _optional_packages() -> str:
    """What each extra has and has not; how one is installed is said once."""
    extras: dict[str, list[str]] = {}
    lacking: list[str] = []
    for name, extra in _requirements():
        if extra and extra not in FOR_DEVELOPMENT:
            try:
                found = f"{name} {version(name)}"
            except PackageNotFoundError:
                found = f"no {name}"
                lacking.append(extra)
            extras.setdefault(extra, []).append(found)
    told = [f"{extra} ({', '.join(found)})" for extra, found in extras.items()]
    return "; ".join([*told, *(f"add one by {install_hint(extra)}" for extra in lacking[:1])])


def _native() -> str:
    from pyrf.ops import native

    return native.described()


def _torch() -> str:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return f"{torch.__version__}, {torch.get_num_threads()} CPU threads, {capability}"


def _cpus() -> str:
    """What this process may use, and what is asked for from outside."""
    import torch

    from pyrf.dtypes import slow_on_cpu

    reason = slow_on_cpu(torch.bfloat16)
    bfloat16 = "fast" if reason is None else f"slow, as {reason}"
    return f"{processor()}; this process may use {available_cpus()}; bfloat16 is {bfloat16}"


def _cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA; streams run on the CPU"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but sees no device; streams run on the CPU"
    from torch.utils import collect_env

    driver = collect_env.get_nvidia_driver_version(collect_env.run)
    devices = []
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        devices.append(f"{torch.cuda.get_device_name(i)} (sm_{major}{minor})")
    return f"{torch.version.cuda}, driver {driver or 'unknown'}, {', '.join(devices)}"


def _attention() -> str:
    """What serves the cached attention; on a CUDA device timed at the size of a chunk of Wan2.1."""
    import torch

    from pyrf.config import ModelConfig, StreamConfig
    from pyrf.models.wan21 import HEIGHT, WIDTH
    from pyrf.ops import native, ring_attention
    from pyrf.ops.attention_choice import CHOICE, Workload
    from pyrf.reports.roofline import Sizes

    mode = CHOICE.mode
    if not torch.cuda.is_available():
        refusal = native.cpu_attention_refusal(ModelConfig().head_dim, torch.float32)
        if mode == "sdpa":
            refusal = "forced"
        here = "pyrf, with AVX-512" if refusal is None else f"{TORCH_ATTENTION}: {refusal}"
        return f"{here}; on CUDA devices {mode}"
    device = torch.device("cuda", torch.cuda.current_device())
    heads, head_dim, dtype = ModelConfig().num_heads, ModelConfig().head_dim, torch.bfloat16
    refusal = native.refusal(heads, head_dim, dtype, device)
    if refusal:
        return f"{TORCH_ATTENTION}: {refusal}"
    if mode != "auto":
        return f"{mode}, forced"
    sizes = Sizes.of(ModelConfig(), StreamConfig(), HEIGHT, WIDTH)
    cache = torch.zeros(1, heads, sizes.window, head_dim, dtype=dtype, device=device)
    q = cache.narrow(2, 0, sizes.tokens)
    ring_attention(q, cache, cache, sizes.window)
    choice = CHOICE.made[Workload.of(q, sizes.window)]
    times = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in choice.seconds.items())
    return f"{choice.backend} for {sizes.tokens} queries and {sizes.window} keys ({times})"


def _video_codecs() -> str:
    import av

    missing = [name for name in ("libx264", "gif") if name not in av.codecs_available]
    if missing:
        raise RuntimeError(f"PyAV {av.__version__} has no encoder {', '.join(missing)}; reinstall av")
    return f"PyAV {av.__version__} encodes H.264 (libx264) and GIF"


def _memory(model: str, how: Loading) -> tuple[str, Bill | None]:
    """What a stream of the model will need, before it is loaded, and what would be changed for it to fit."""
    from pyrf.backends.choice import AUTO, check_backend, check_dtype, fastest_backend
    from pyrf.bundle import load_bundle
    from pyrf.checks import check_device
    from pyrf.memory.choice import choose_setup
    from pyrf.memory.setup import Setup

    check_backend(how.backend, None)
    bundle, dtype, device = load_bundle(model), check_dtype(how.dtype, how.backend), check_device(how.device)
    backend = how.backend
    if backend == AUTO:  # a limit is for torch then, as in a load
        backend = fastest_backend(bundle, dtype, device) if how.max_memory is None else "torch"
    asked = Setup(dtype, device, bundle.stream_config, backend=backend)
    found = choose_setup(bundle, asked, how.max_memory, always=True)
    return "; ".join(line.removeprefix("memory: ") for line in found.lines()), found.bill


def _model(model: str, how: Loading) -> str:
    from pyrf.pipeline import StreamingPipeline

    pipe = StreamingPipeline.from_pretrained(
        model, dtype=how.dtype, device=how.device, backend=how.backend, max_memory=how.max_memory
    )
    with pipe.stream(pipe.card.example or "the sea at dawn") as stream:  # what it knows gives no warning
        frames = next(stream).frames
    _, height, width, _ = frames.shape
    return f"loads, and its first chunk has {len(frames)} frames of {height} x {width}"


def report(model: str, how: Loading | None = None, *, as_json: bool = False) -> bool:
    """Print the findings, one per line, or one JSON object of them all; False when something is broken."""
    findings = []
    for finding in examine(model, how):
        findings.append(finding)
        if not as_json:
            printing.deliver(f"{'ok     ' if finding.ok else 'problem'}  {finding.name}: {finding.detail}")
            for line in finding.bill.table() if finding.bill else ():
                printing.deliver(f"         {line}")
    healthy = all(finding.ok for finding in findings)
    if as_json:
        told: dict[str, dict[str, object]] = {}
        for finding in findings:
            told[finding.key] = {"ok": finding.ok, "detail": finding.detail}
            if finding.bill is not None:
                told[finding.key]["bytes"] = finding.bill.to_dict()
        printing.deliver(json.dumps({"ok": healthy, "findings": told}))
    return healthy
