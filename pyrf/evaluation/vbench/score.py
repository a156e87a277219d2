"""Scores by VBench's own code, in an environment of its own; what is scored is kept."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyrf.evaluation.vbench.prompts import dimensions_of
from pyrf.evaluation.vbench.results import ENDING
from pyrf.evaluation.vbench.sample import SAMPLES
from pyrf.printing import counted, tell

INSIDE = Path(__file__).with_name("inside.py")


def check_complete(videos: Path, info: Path, dimensions: Iterable[str]) -> None:
    """Refuse a folder that lacks videos: VBench would only warn, and score what there is.

    Raises:
        ValueError: naming the first that is missing, or what is no video.
    """
    there = {path.name for path in videos.iterdir()} if videos.is_dir() else set()
    if other := sorted(name for name in there if not name.endswith(".mp4")):
        raise ValueError(
            f"{videos} must hold .mp4 files alone, or VBench finds none of them: {other[0]} is there"
        )
    texts = dimensions_of(info)
    for dimension in dimensions:
        wanted = [f"{text}-{i}.mp4" for text in sorted(texts.get(dimension, ())) for i in range(SAMPLES)]
        missing = [name for name in wanted if name not in there]
        if missing or not wanted:
            raise ValueError(
                f"{videos} lacks {len(missing)} of the {counted(len(wanted), 'video')} of {dimension}"
                + (f", such as {missing[0]!r}" if missing else "")
            )


def score(
    videos: Path,
    out: Path,
    dimensions: Sequence[str],
    *,
    python: Path,
    info: Path,
    device: str,
    mode: str = "vbench_standard",
) -> None:
    """Score what was not scored before; the results are VBench's own files.

    Args:
        videos: a folder of MP4 files.
        out: gets `{dimension}_eval_results.json`.
        python: of an environment in which `vbench` is installed.
        info: VBench_full_info.json.
        device: of torch, such as "cuda".
        mode: "vbench_standard", or "custom_input", which takes any names.

    Raises:
        ValueError: when VBench fails, with the end of what it said.
        OSError: when there is no such Python.
    """
    out.mkdir(parents=True, exist_ok=True)
    for dimension in dimensions:
        result = out / f"{dimension}{ENDING}"
        if result.exists():
            tell(f"{dimension}: scored before, in {result}")
            continue
        tell(f"{dimension}: scoring")
        given = [videos.absolute(), out.absolute(), dimension, mode, info.absolute(), device]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(python), str(INSIDE), *map(str, given)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            check=False,
        )
        if done.returncode or not result.exists():
            said = done.stderr.decode(errors="replace").strip()[-600:]
            hint = (
                "; install it there with pip install vbench" if re.search("No module.*vbench", said) else ""
            )
            raise ValueError(
                f"vbench in {python} did not score {dimension}: {said or 'it wrote nothing'}{hint}"
            )
