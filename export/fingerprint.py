"""What an export was made from: the files of a bundle, and the packages that traced it."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import torch

from pyrf import __version__
from pyrf.bundle.bundle import Bundle
from pyrf.bundle.weights import weight_files
from pyrf.export.manifest import file_entry
from pyrf.models.dit.adapter import Adapter, LowRank


def bundle_fingerprint(bundle: Bundle) -> str:
    """SHA-256 over the files that a bundle is read from, and the adapters that change its weights.

    What else lies beside the files does not matter, nor does an adapter of strength 0.

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
    for adapter in bundle.adapters:
        if adapter.strength:
            digest.update(_adapter_digest(adapter))
    return digest.hexdigest()


def _adapter_digest(adapter: Adapter) -> bytes:
    """SHA-256 over what an adapter adds to the weights; its name and path do not matter."""
    digest = hashlib.sha256(f"{adapter.strength!r}\n".encode())
    for name, changes in sorted(adapter.changes.items()):
        for change in changes:
            tensors = (change.up, change.down) if isinstance(change, LowRank) else (change.values,)
            digest.update(f"{name} {change.factor!r} {[(t.dtype, t.shape) for t in tensors]}\n".encode())
            for tensor in tensors:
                digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what an export looks like."""
    return {"pyrf": __version__, **{name: version(name) for name in ("torch", "onnx", "onnxscript")}}
