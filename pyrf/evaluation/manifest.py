"""What decides the results in a folder, as a file in it: the same command goes on, another one is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyrf.export.manifest import file_entry
from pyrf.files import whole_file


def code_version() -> dict[str, str]:
    """Version of pyrf and of torch, and the SHA-256 of pyrf's Python files as they are installed."""
    from importlib.metadata import version

    import pyrf.export

    digest = hashlib.sha256()
    for package in (pyrf, pyrf.export):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(folder)} {file_entry(path)[1]}\n".encode())
    return {"pyrf": pyrf.__version__, "torch": version("torch"), "source": digest.hexdigest()}


def keep_manifest(out: Path, about: Mapping[str, object], name: str = "manifest.json") -> None:
    """Write a manifest into a folder, which is made; all manifests of a folder must say the same.

    Args:
        about: JSON values by name.
        name: of the file, `manifest*.json`.

    Raises:
        ValueError: when the folder's results were made otherwise, naming the first difference.
        OSError: when it cannot be written.
    """
    for path in sorted(out.glob("manifest*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if difference := next(_differences(found, about), None):
            raise ValueError(
                f"{path} was written for another {difference}; what is there is not of this command. "
                "Name another folder, or go on with what made it"
            )
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / name) as temporary:
        temporary.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _differences(found: Mapping[str, object], about: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key in sorted({*found, *about}):
        one, other = found.get(key), about.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{prefix}{key} ")
        elif one != other:
            yield f"{prefix}{key} ({one!r:.60}, now {other!r:.60})"
