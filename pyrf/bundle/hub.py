"""Where a named bundle or student file is: in the package, on disk, or on the Hugging Face hub."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable
from pathlib import Path

_REPO = r"[\w.-]+/[\w.-]+"
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
    "Wan2.1_VAE.pth",
    "models_t5_umt5-xxl-enc-bf16.pth",
)
_DIT_WEIGHTS = ("transformer/*.safetensors", "diffusion_pytorch_model*.safetensors")


class BundleError(ValueError):
    """A bundle that cannot be found, read or written. The message says what to do."""


def find_bundle(name: str | Path, *, revision: str | None = None, dit_weights: bool = True) -> Path:
    """The directory of a bundle, downloaded when it is a hub id that is not in the hub's cache.

    Args:
        name: "tiny" (the bundle in the package), a directory, or a hub id "owner/name".
        revision: branch, tag or commit of a hub id.
        dit_weights: False leaves the transformer's weights on the hub, for when a student replaces them.

    Raises:
        BundleError: when there is no such bundle, or the hub cannot be reached.
    """
    if str(name) == "tiny":
        path = Path(str(importlib.resources.files("pyrf"))) / "assets" / "tiny"
        if not (path / "model_index.json").is_file():
            raise BundleError(f"the bundled model is missing from {path}; install pyrf again")
        return path
    if name and Path(name).is_dir():
        return Path(name)
    if isinstance(name, Path) or not re.fullmatch(_REPO, name):
        raise BundleError(f"no bundle {str(name)!r}: give 'tiny', a directory, or a hub id 'owner/name'")

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
    match = re.fullmatch(rf"({_REPO})/(.+)", str(name))
    if isinstance(name, Path) or not match or not name.endswith(_STUDENT_SUFFIXES):
        raise BundleError(f"no student {str(name)!r}: give a file, or 'owner/name/file.pt' on the hub")
    repo, file = match.groups()

    def download() -> str:
        from huggingface_hub import hf_hub_download

        return hf_hub_download(repo, file)

    return _fetch(download, repo, file=file)


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
