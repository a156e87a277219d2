"""Where a named bundle or student file is: in the package, on disk, or on the Hugging Face hub."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable
from pathlib import Path

from pyrf.bundle.json_file import BundleError

_HUB_ID = r"[\w.-]+/[\w.-]+"
_STUDENT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
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
_DIT_WEIGHTS = ("transformer/*.safetensors", "diffusion_pytorch_model*.safetensors")


def find_bundle(name: str | Path, *, revision: str | None = None, dit_weights: bool = True) -> Path:
    """The directory of a bundle, downloaded when it is a hub id that is not in the hub's cache.

    Args:
        name: a bundle in the package ("tiny"), a directory, or a hub id "owner/name".
        revision: branch, tag or commit of a hub id.
        dit_weights: False leaves the transformer's weights on the hub, for when a student replaces them.

    Raises:
        BundleError: when there is no such bundle, or the hub cannot be reached.
    """
    assets = Path(str(importlib.resources.files("pyrf"))) / "assets"
    bundled = sorted(path.parent.name for path in assets.glob("*/model_index.json"))
    if str(name) in bundled:
        return assets / name
    if name and Path(name).is_dir():
        return Path(name)
    if isinstance(name, Path) or not re.fullmatch(_HUB_ID, name):
        if not bundled:
            raise BundleError(
                f"no bundle {str(name)!r}, and the bundled model is missing from {assets}; install pyrf again"
            )
        known = ", ".join(map(repr, bundled))
        raise BundleError(f"no bundle {str(name)!r}: give {known}, a directory, or a hub id 'owner/name'")

    patterns = [*_CONFIGS, *_WEIGHTS, *(_DIT_WEIGHTS if dit_weights else ())]

    def download() -> str:
        from huggingface_hub import snapshot_download

        return snapshot_download(name, revision=revision, allow_patterns=patterns)

    return _fetch(download, name, revision=revision)


def find_student(name: str | Path) -> Path:
    """The weights file of a student: a local file, or "owner/name/file.pt" on the hub.

    Raises:
        BundleError: when there is no such file, or the hub cannot be reached.
    """
    if Path(name).is_file():
        return Path(name)
    match = re.fullmatch(rf"({_HUB_ID})/(.+)", str(name))
    if isinstance(name, Path) or not match or not name.endswith(_STUDENT_SUFFIXES):
        raise BundleError(f"no student {str(name)!r}: give a file, or 'owner/name/file.pt' on the hub")
    repo, file = match.groups()

    def download() -> str:
        from huggingface_hub import hf_hub_download

        return hf_hub_download(repo, file)

    return _fetch(download, repo, file=file)


def has_bundle(name: str) -> bool:
    """Whether `find_bundle` would download nothing: a bundle is on this machine, or in the hub's cache."""
    if re.fullmatch(_HUB_ID, name) and not Path(name).is_dir():
        return any(_is_cached(name, file) for file in ("model_index.json", "config.json"))
    try:
        return find_bundle(name).is_dir()
    except BundleError:
        return False


def has_student(name: str) -> bool:
    """Whether `find_student` would download nothing."""
    match = re.fullmatch(rf"({_HUB_ID})/(.+)", name)
    return Path(name).is_file() or (match is not None and _is_cached(*match.groups()))


def _is_cached(repo: str, file: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, file), str)


def _fetch(
    download: Callable[[], str], repo: str, *, revision: str | None = None, file: str | None = None
) -> Path:
    """Run a download, and say in one line why it failed."""
    from huggingface_hub import errors

    what = (f"{repo}/{file}" if file else repo) + (f" at revision {revision!r}" if revision else "")
    cause: Exception
    try:
        return Path(download())
    except errors.GatedRepoError as error:
        cause, why = error, f"{repo} is gated: accept its terms on the hub and run `hf auth login`"
    except errors.RepositoryNotFoundError as error:
        cause, why = error, f"the hub has no {repo}; if it is private, run `hf auth login`"
    except errors.RevisionNotFoundError as error:
        cause, why = error, f"{repo} has no branch, tag or commit {revision!r}"
    except errors.RemoteEntryNotFoundError as error:
        cause, why = error, f"{repo} has no file {file!r}"
    except errors.LocalEntryNotFoundError as error:
        why = (
            f"{what} is not in the local cache and the hub cannot be reached: connect once "
            "(and unset HF_HUB_OFFLINE), or give a local path"
        )
        cause = error
    except Exception as error:  # failures of network, disk and hub share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        cause, why = error, f"could not download {what}: {reason}; try again or give a local path"
    raise BundleError(why) from cause
