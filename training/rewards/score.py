"""The older path of `pyrf.evaluation.scores.score_file`."""

from __future__ import annotations

import sys
import warnings

from pyrf.evaluation.scores.score_file import main, score_video

__all__ = ["main", "score_video"]

warnings.warn(
    "pyrf.training.rewards.score is now pyrf.evaluation.scores.score_file", DeprecationWarning, stacklevel=2
)

if __name__ == "__main__":
    sys.exit(main())
