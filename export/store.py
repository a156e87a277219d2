"""Exports kept on disk, made when first asked for: for each bundle, dtype, precision, size and version."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from pyrf.bundle.bundle import Bundle
from pyrf.config import StreamConfig
from pyrf.export.errors import ExportError
from pyrf.export.fingerprint import bundle_fingerprint, package_versions
from pyrf.export.manifest import FORMAT, Manifest, load_manifest
from pyrf.extras import needs
from pyrf.files import expanded
from pyrf.partial import KeptError, remove_dead

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where pyrf keeps what it can make again: $PYRF_CACHE, else `pyrf` in the user's cache folder.

    Raises:
        ExportError: when nothing says where that is, as there is no home folder.
    """
    if given := os.environ.get("PYRF_CACHE"):
        return Path(expanded(given))
    try:
        return Path(expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "pyrf"
    except ValueError as error:
        raise ExportError(
            "there is no home folder here (HOME is not set), so no place to keep exports: "
            "set PYRF_CACHE to a folder"
        ) from error


def stored_export(
    bundle: Bundle, *, dtype: str, height: int, width: int, precision: str | None = None
) -> Path:
    """The folder of a bundle's export, which is made when it is not there or damaged.

    Args:
        bundle: what to export.
        dtype, height, width, precision: see `export_onnx`.

    Raises:
        ValueError: when packages are missing, or the bundle cannot be exported.
    """
    with needs("onnx", "exporting"):
        from pyrf.export.exporter import export_onnx
    key = {
        "format": FORMAT,
        "weights": bundle_fingerprint(bundle),
        "stream": asdict(bundle.stream_config),
        "size": [height, width],
        "dtype": dtype,
        **({} if precision is None else {"precision": precision}),
        "versions": package_versions(),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_folder() / "onnx" / name
    if folder.exists():
        try:
            load_manifest(folder)
        except ExportError as error:
            logger.warning("%s: exporting it again", error)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            return folder
    for left in folder.parent.glob(".*"):  # by killed processes: gigabytes that nobody else would remove
        remove_dead(left)
    logger.warning("exporting %s at %d x %d, once; it is kept in %s", bundle.path, height, width, folder)
    try:
        export_onnx(bundle, folder, dtype=dtype, precision=precision, height=height, width=width)
        gc.collect()  # a traced graph holds itself, and the network's weights with it
    except KeptError as error:
        if not folder.exists():
            raise ExportError(str(error)) from error
        shutil.rmtree(error.kept)  # another process was first
    except OSError as error:
        if not folder.exists():  # else another process was first
            raise ExportError(
                f"cannot write {folder}: {error.strerror or error}; "
                "set PYRF_CACHE to a folder that can be written and has room"
            ) from error
    return folder


def check_export(folder: Path, bundle: Bundle, *, dtype: str, precision: str | None = None) -> Manifest:
    """Check that a folder is whole and was exported from a bundle, as it streams now.

    Raises:
        ExportError: when it is not, or has another dtype or precision; the message says what differs.
    """
    manifest = load_manifest(folder)
    if manifest.precision != precision:
        has, asked = (
            f"precision {name}" if name else "no precision" for name in (manifest.precision, precision)
        )
        way = f"give precision {manifest.precision}" if manifest.precision else "leave precision out"
        raise ExportError(f"{folder} was exported with {has}, got {asked}; {way}, or export it again")
    differences = {
        "dtype": (manifest.dtype, dtype),
        "network": (manifest.model, bundle.model_config),
        "stream": (_cut(manifest.stream), _cut(bundle.stream_config)),
        "weights": (manifest.weights, bundle_fingerprint(bundle)),
    }
    for name, (found, wanted) in differences.items():
        if found != wanted:
            raise ExportError(
                f"{folder} was exported from another {name} ({found}, the bundle's is {wanted}); "
                "export it again"
            )
    return manifest


def _cut(stream: StreamConfig) -> StreamConfig:
    """What of a stream's configuration the graphs depend on; the rest is left at its defaults."""
    defaults = StreamConfig()
    return replace(
        stream,
        sink_alpha=defaults.sink_alpha,
        denoising_steps=defaults.denoising_steps,
        first_chunk_steps=defaults.first_chunk_steps,
        shift=defaults.shift,
        sampler=defaults.sampler,
    )
