"""Scores a video file.

python -m pyrf.evaluation.scores.score_file out.mp4 --prompt "a red circle moves right"
python -m pyrf.evaluation.scores.score_file out.mp4 --prompt "a dog runs" --settings score.yaml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import yaml
from pydantic import TypeAdapter, ValidationError

from pyrf import printing
from pyrf.evaluation.scores.motion import FPS
from pyrf.evaluation.scores.protocol import Score, ScoreError
from pyrf.evaluation.scores.settings import MotionSettings, ScoreSettings, load_score
from pyrf.files import expanded
from pyrf.settings import first_problem
from pyrf.video.decoded import display_size
from pyrf.video.reader import read_frames


def score_video(path: str | Path, prompt: str, score: Score) -> dict[str, float]:
    """Every score of a video file, resampled to 16 frames per second.

    Raises:
        ValueError: when the file cannot be read, or is too short for the score.
    """
    height, width = video_size(path)
    frames = read_frames(path, height=height, width=width, fps=FPS)
    scores = score(torch.from_numpy(frames)[None], [prompt])
    return {name: float(value) for name, value in scores.items()}


def video_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a video as it is shown: turned, and with square pixels.

    Raises:
        ScoreError: when it cannot be read.
    """
    import av

    try:
        with av.open(expanded(path)) as container:
            return display_size(container.streams.video[0])
    except (OSError, IndexError) as error:
        raise ScoreError(f"cannot read {path} as a video: {error}") from error


def load_settings(path: Path | None) -> ScoreSettings:
    """Settings of a score from a YAML file; without one, the motion score.

    Raises:
        ScoreError: when the file is missing or not valid.
    """
    if path is None:
        return MotionSettings(kind="motion")
    try:
        return TypeAdapter[ScoreSettings](ScoreSettings).validate_python(
            yaml.safe_load(Path(expanded(path)).read_text())
        )
    except (OSError, yaml.YAMLError) as error:
        raise ScoreError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ScoreError(f"{path}: {first_problem(error)}") from error


def main(arguments: list[str] | None = None) -> int:
    """Print the scores of a file; 2 when it cannot be scored."""
    parser = argparse.ArgumentParser(prog="python -m pyrf.evaluation.scores.score_file", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("video", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--settings", type=Path, help="YAML of a score; by default {kind: motion}")
    options = parser.parse_args(arguments)
    try:
        scores = score_video(options.video, options.prompt, load_score(load_settings(options.settings)))
    except ValueError as error:
        printing.tell(f"error: {error}")
        return 2
    printing.deliver("\n".join(f"{name:12} {score:8.3f}" for name, score in scores.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
