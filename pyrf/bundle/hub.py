"""Where a named bundle or student file is: in the package, on disk, or on the Hugging Face hub."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from pathlib import Path

from pyrf.bundle.hub_errors import fetch
from pyrf.bundle.json_file import BundleError
from pyrf.bundle.student import STUDENT_SUFFIXES
from pyrf.files import expanded

_HUB_ID = r"[\w.-]+/[\w.-]+"
_ADDRESS = rf"https?://(?:huggingface\.co|hf\.co)/({_HUB_ID})(?:/(?:resolve|blob)/[^/]+/([^?]+))?"
_CONFIGS = (
    "model_index.json",
    "*/config.json",
    "*.index.json",
    "config.json",
    "scheduler/*.json",
    "tokenizer/*",
    "google/umt5-xxl/*",
)
_WEIGHTS = (
    "vae/*.safetensors",
    "text_encoder/*.safetensors",
    "Wan?.?_VAE.pth",
    "models_t5_umt5-xxl-enc-bf16.pth",
)
_STUDENT_CONFIGS = ("model_index.json", "transformer/*.json", "config.json", "*.index.json")
_DIT_WEIGHTS = ("transformer/*.safetensors", "diffusion_pytorch_model*.safetensors")


def find_bundle(name: str | Path, *, revision: str | None = None, dit_weights: bool = True) -> Path:
    """The directory of a bundle, downloaded when it is a hub id that is not in the hub's cache.

    Args:
        name: a bundle in the package ("valley", "tiny"), a directory, or a hub id "owner/name". What looks
            like a path is never asked of the hub: one that begins with `.`, `/` or `~`, or in a folder that
            is there.
        revision: branch, tag or commit of a hub id.
        dit_weights: False leaves the transformer's weights on the hub, for when a student replaces them.

    Raises:
        BundleError: when there is no such bundle, or the hub cannot be reached.
    """
    assets = Path(str(importlib.resources.files("pyrf"))) / "assets"
    bundled = sorted(path.parent.name for path in assets.glob("*/model_index.json"))
    if str(name) in bundled:
        return assets / name
    place = Path(expanded(name))
    if str(name) and place.is_dir():
        return place
    if isinstance(name, Path) or not re.fullmatch(_HUB_ID, name) or _is_local(name):
        if not bundled:
            raise BundleError(
                f"no bundle {str(name)!r}, and the bundled model is missing from {assets}; install pyrf again"
            )
        known = ", ".join(map(repr, bundled))
        raise BundleError(
            f"no bundle {str(name)!r}: {_why_not(str(name), place, bundled)}give {known}, a directory, "
            "or a hub id 'owner/name'"
        )

    if re.search(r"A14B", name):  # before 120 GB are fetched
        raise BundleError(
            f"{name}: Wan2.2-A14B is a model of two experts, of which one alone gives wrong pictures; give a "
            "model of one transformer, such as Wan-AI/Wan2.2-TI2V-5B-Diffusers"
        )
    patterns = [*_CONFIGS, *_WEIGHTS, *(_DIT_WEIGHTS if dit_weights else ())]

    def download() -> str:
        from huggingface_hub import snapshot_download

        return snapshot_download(name, revision=revision, allow_patterns=patterns)

    return fetch(download, name, revision=revision)


def find_student(name: str | Path, *, what: str = "student") -> Path:
    """The weights of a student: a local file or folder, or "owner/name/file.pt" or "owner/name" on the hub.

    Args:
        what: what they are of, for a message: an adapter is found in the same way.

    Raises:
        BundleError: when there is no such file, or the hub cannot be reached.
    """
    place = Path(expanded(name))
    if str(name) and place.exists():
        return place
    match = re.fullmatch(rf"({_HUB_ID})(?:/(.+))?", str(name))
    if (
        isinstance(name, Path)
        or not match
        or (match[2] is not None and not name.endswith(STUDENT_SUFFIXES))
        or _is_local(name)
    ):
        raise BundleError(
            f"no {what} {str(name)!r}: {_why_not(str(name), place, [])}give a file, a folder of diffusers, "
            "or 'owner/name/file.pt' on the hub"
        )
    repo, file = match.groups()

    def download() -> str:
        from huggingface_hub import hf_hub_download, snapshot_download

        if file is None:
            return snapshot_download(repo, allow_patterns=[*_STUDENT_CONFIGS, *_DIT_WEIGHTS])
        return hf_hub_download(repo, file)

    return fetch(download, repo, file=file)


def _is_local(name: str) -> bool:
    """Whether a name looks like a path, and is no hub id."""
    first = name.partition("/")[0]
    return name.startswith((".", "/", "~")) or Path(first).is_dir()


def _why_not(name: str, place: Path, bundled: list[str]) -> str:
    """Why a name means nothing, as the middle of a sentence; empty where there is nothing to say."""
    if address := re.match(_ADDRESS, name):
        repo, file = address.groups()
        return f"an address; its name on the hub is {repo}{f'/{file}' if file else ''}; "
    if re.match(r"[a-z][a-z0-9+.-]*://", name):
        return "an address; fetch what is there first; "
    if name.endswith(".gguf"):
        return "GGUF files are not read; "
    if place.is_file():
        return "it is a file; one with weights is given as student; "
    if not name:
        return ""
    near = [] if "/" in name else difflib.get_close_matches(name, bundled, n=1)
    if place.parent.is_dir():
        beside = [entry.name for entry in place.parent.iterdir()]
        near += [str(place.parent / n) for n in difflib.get_close_matches(place.name, beside, n=2)]
    hint = f" (near it: {', '.join(near)})" if near else ""
    if "/" in name or near:
        return f"there is nothing of that name{hint}; "
    return ""


def has_bundle(name: str) -> bool:
    """Whether `find_bundle` would download nothing: a bundle is on this machine, or in the hub's cache."""
    if re.fullmatch(_HUB_ID, name) and not Path(name).is_dir() and not _is_local(name):
        return any(_is_cached(name, file) for file in ("model_index.json", "config.json"))
    try:
        return find_bundle(name).is_dir()
    except BundleError:
        return False


def has_student(name: str) -> bool:
    """Whether `find_student` would download nothing."""
    if Path(expanded(name)).exists():
        return True
    match = re.fullmatch(rf"({_HUB_ID})(?:/(.+))?", name)
    return match is not None and _is_cached(match[1], match[2] or "transformer/config.json")


def _is_cached(repo: str, file: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, file), str)
