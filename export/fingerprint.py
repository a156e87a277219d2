"""What an export was made from: the files of a bundle, and the packages that traced it."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from pyrf.bundle.bundle import Bundle
from pyrf.bundle.weights import weight_files
from pyrf.export.manifest import file_entry


def bundle_fingerprint(bundle: Bundle) -> str:
    """SHA-256 over the files that a bundle is read from; what else lies beside them does not matter.

    Raises:
        CheckpointError: when a file of weights is missing, or an index of shards damaged.
    """
    paths = bundle.layout.files(dit_weights=bundle.student is None)
    if bundle.student is not None:
        paths += weight_files(bundle.student)
    digest = hashlib.sha256()
    for path in paths:
        size, content = file_entry(path)
        name = path.relative_to(bundle.path) if path.is_relative_to(bundle.path) else path.name
        digest.update(f"{name} {size} {content}\n".encode())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what an export looks like."""
    return {name: version(name) for name in ("pyrf", "torch", "onnx", "onnxscript")}
