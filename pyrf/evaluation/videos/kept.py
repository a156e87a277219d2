"""What was measured of videos, on disk by the videos' hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pyrf.evaluation.videos.measures import Measured
from pyrf.files import whole_file


class KeptMeasures:
    """A file for each video; numbers come back as they were, to the last bit.

    Args:
        folder: it is made when the first video is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, digest: str) -> dict[str, Measured] | None:
        """Measure -> what was measured of the video of a SHA-256, or None.

        Raises:
            ValueError: when its file is damaged.
        """
        path = self._path(digest)
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {
                name: Measured(**{**one, "curve": np.array(one["curve"], dtype=np.float64)})
                for name, one in found.items()
            }
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: damaged ({error}); remove it, and its video is measured again"
            ) from error

    def keep(self, digest: str, measured: Mapping[str, Measured]) -> None:
        """Write what was measured of a video.

        Raises:
            OSError: when it cannot be written.
        """
        self._folder.mkdir(exist_ok=True)
        told = {name: {**one._asdict(), "curve": one.curve.tolist()} for name, one in measured.items()}
        with whole_file(self._path(digest)) as temporary:
            temporary.write_text(json.dumps(told, allow_nan=False) + "\n", encoding="utf-8")

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"
