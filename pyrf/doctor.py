"""`pyrf doctor`: what is installed, what it can run on, and whether the whole chain works."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, whether it works, and what was found."""

    name: str
    ok: bool
    detail: str


def examine(model: str = "tiny") -> Iterator[Finding]:
    """Look at everything a stream needs, one finding at a time; a failure stops none of the later ones."""
    checks: dict[str, Callable[[], str]] = {
        "pyrf": _pyrf,
        "packages": _packages,
        "native module": _native,
        "torch": _torch,
        "cuda": _cuda,
        "video codecs": _video_codecs,
        f"model {model}": lambda: _model(model),
    }
    for name, check in checks.items():
        try:
            yield Finding(name, True, check())
        except Exception as error:
            yield Finding(name, False, " ".join(f"{type(error).__name__}: {error}".split()))


def _pyrf() -> str:
    from pyrf import __version__

    return f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _packages() -> str:
    names = ("numpy", "safetensors", "transformers", "diffusers", "huggingface-hub", "av", "pillow")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _native() -> str:
    info = import_module("pyrf._native").build_info()
    return ", ".join(f"{key} {value}" for key, value in info.items())


def _torch() -> str:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return f"{torch.__version__}, {torch.get_num_threads()} CPU threads, {capability}"


def _cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA; streams run on the CPU"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but sees no device; streams run on the CPU"
    devices = (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"{torch.version.cuda}, " + ", ".join(devices)


def _video_codecs() -> str:
    import av

    missing = [name for name in ("libx264", "gif") if name not in av.codecs_available]
    if missing:
        raise RuntimeError(f"PyAV {av.__version__} has no encoder {', '.join(missing)}; reinstall av")
    return f"PyAV {av.__version__} encodes H.264 (libx264) and GIF"


def _model(model: str) -> str:
    from pyrf.pipeline import StreamingPipeline

    pipe = StreamingPipeline.from_pretrained(model)
    with pipe.stream("a test") as stream:
        frames = next(stream).frames
    _, height, width, _ = frames.shape
    return f"loads, and its first chunk has {len(frames)} frames of {height} x {width}"


def report(model: str = "tiny") -> bool:
    """Print the findings, a line each; False when something is broken."""
    healthy = True
    for finding in examine(model):
        healthy &= finding.ok
        print(f"{'ok     ' if finding.ok else 'problem'}  {finding.name}: {finding.detail}")
        sys.stdout.flush()
    return healthy
