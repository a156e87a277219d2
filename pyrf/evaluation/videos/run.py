"""Measure folders of videos; what is measured is kept, so that the same command goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyrf.evaluation.manifest import code_version, keep_manifest
from pyrf.evaluation.videos.clip import read_clip
from pyrf.evaluation.videos.kept import KeptMeasures
from pyrf.evaluation.videos.measures import Chunks, Measured, measure
from pyrf.export.manifest import file_entry
from pyrf.extras import needs
from pyrf.printing import tell

if TYPE_CHECKING:
    from pyrf.evaluation.videos.backbone import Backbone

MAX_VIDEOS = 10_000
"""Of all folders together."""


def find_videos(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Folder, as it was named -> its MP4 files in order.

    Raises:
        ValueError: when a folder is none, is named twice or has no MP4 file, or there are too many files.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")
        if str(folder) in found:
            raise ValueError(f"{folder} is named twice")
        found[str(folder)] = sorted(folder.glob("*.mp4"))
        if not found[str(folder)]:
            raise ValueError(f"{folder} holds no .mp4 files")
    if (count := sum(map(len, found.values()))) > MAX_VIDEOS:
        raise ValueError(f"{count} videos are more than {MAX_VIDEOS}; measure a part")
    return found


def manifest(chunks: Chunks, backbone: Backbone | None = None) -> dict[str, object]:
    """What decides a video's measures, beside the video."""
    import av

    with needs("eval", "measuring videos"):
        import cv2
    return {
        "format": 1,
        "settings": {"first_chunk": chunks.first, "chunk": chunks.others},
        "backbone": {} if backbone is None else dict(backbone.files),
        "code": {**code_version(), "opencv": cv2.__version__, "av": av.__version__},
    }


def measure_folders(
    found: dict[str, list[Path]], chunks: Chunks, out: Path, backbone: Backbone | None = None
) -> dict[str, dict[str, dict[str, Measured]]]:
    """Measure the videos that were not measured before: folder -> video -> measure -> what was measured.

    Args:
        out: has `manifest.json` and, by the SHA-256 of each video, what was measured of it.

    Raises:
        ValueError: when a video cannot be read or is too short, naming it, or the folder is about something
            else.
        OSError: when something cannot be written.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "manifest.json").exists())):
        raise ValueError(f"{out} is there already and no report; name a new folder for it")
    keep_manifest(out, manifest(chunks, backbone))
    kept = KeptMeasures(out / "measured")
    results: dict[str, dict[str, dict[str, Measured]]] = {}
    total = sum(map(len, found.values()))
    for folder, paths in found.items():
        results[folder] = {}
        for path in paths:
            shown = f"video {sum(map(len, results.values())) + 1} of {total}: {path}"
            digest = file_entry(path)[1]
            measured = kept.get(digest)
            tell(shown if measured is None else f"{shown}: measured before")
            if measured is None:
                clip = read_clip(path)
                measured = measure(clip, chunks)
                if backbone is not None:
                    measured["constancy"] = backbone.measure(clip)
                kept.keep(digest, measured)
            results[folder][path.name] = measured
    return results
