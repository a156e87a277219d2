"""VBench's own result files: a score per dimension, and a value per video."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pyrf.checks import is_number
from pyrf.evaluation.vbench.totals import DIMENSIONS

ENDING = "_eval_results.json"
PERCENT = "imaging_quality"
"""Its values of videos are points of 100, while its score is a share."""


class Result(NamedTuple):
    """A dimension's score as a share, and (path of a video, value) pairs, values as VBench has them."""

    score: float
    videos: tuple[tuple[str, float], ...]


def read_results(paths: Iterable[Path]) -> dict[str, Result]:
    """What VBench wrote, of files and of folders that hold them.

    Raises:
        ValueError: when there are none, one is damaged, or two have the same dimension.
        OSError: when a file cannot be read.
    """
    paths = list(paths)
    files = [f for p in paths for f in (sorted(p.glob(f"*{ENDING}")) if p.is_dir() else [p])]
    if not files:
        raise ValueError(f"no results in {', '.join(map(str, paths))}; VBench writes *{ENDING}")
    found: dict[str, Result] = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            results = {name: _result(value) for name, value in content.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: not what VBench writes ({error!r})") from error
        for name, result in results.items():
            if name not in DIMENSIONS:
                raise ValueError(f"{file}: no dimension {name!r}; there are {', '.join(DIMENSIONS)}")
            if name in found:
                raise ValueError(f"{file}: {name} is in another file too; give the results of one run")
            found[name] = result
    return found


def _result(value: object) -> Result:
    score, videos = value if isinstance(value, list | tuple) else (value, ())
    if isinstance(score, bool) or not is_number(score):
        raise ValueError(f"score {score!r}")
    pairs = ((video["video_path"], _number(video["video_results"])) for video in videos)
    return Result(float(score), tuple(pairs))


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]  # some dimensions have true and false
    if not math.isfinite(number):
        raise ValueError(f"a video's value is {value}")
    return number
