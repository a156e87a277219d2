"""What a file kept on disk was made from, so that one made from something else is not taken for it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from safetensors import safe_open
from torch import nn

KEY = "origin"
"""In a safetensors file's metadata."""


def fingerprint(*parts: object) -> str:
    """Hexadecimal digest of modules' weights, files' content, and the `repr` of whatever else."""
    digest = sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            for name, tensor in part.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(part, Path):
            digest.update(part.read_bytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def origin_of(file: Path) -> str | None:
    """The fingerprint stored in a safetensors file, None without one."""
    with safe_open(file, "pt") as opened:
        return (opened.metadata() or {}).get(KEY)
