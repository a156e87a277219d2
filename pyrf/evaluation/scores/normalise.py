"""Scores in units of their own spread: (score - mean) / std, with the mean and std of a reference set."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from pyrf.evaluation.scores.protocol import ScoreError, Scores
from pyrf.files import whole_file


@dataclass(frozen=True)
class Normaliser:
    """Mean and standard deviation of those scores that have no natural unit.

    Attributes:
        stats: name -> (mean, std). Scores that are not named here, such as shares of 0 to 1, stay.

    Raises:
        ScoreError: when a mean is not finite or a std not positive.
    """

    stats: Mapping[str, tuple[float, float]]

    def __post_init__(self) -> None:
        for name, (mean, std) in self.stats.items():
            if not math.isfinite(mean) or not (math.isfinite(std) and std > 0):
                raise ScoreError(f"score {name}: mean must be finite and std positive, got {mean} and {std}")

    def __call__(self, scores: Scores) -> Scores:
        """Normalise the scores that have a mean and a std."""
        return {name: self._normalised(name, score) for name, score in scores.items()}

    def _normalised(self, name: str, score: Tensor) -> Tensor:
        mean, std = self.stats.get(name, (0.0, 1.0))
        return (score - mean) / std

    @classmethod
    def load(cls, path: Path | Traversable) -> Self:
        """Read a JSON file: {"scores": {name: {"mean": m, "std": s}}}; other keys are notes.

        Raises:
            ScoreError: when the file is missing or not of that form.
        """
        try:
            scores = json.loads(path.read_text())["scores"]
            return cls({name: (float(entry["mean"]), float(entry["std"])) for name, entry in scores.items()})
        except FileNotFoundError as error:
            raise ScoreError(f"{path}: no such file of means and stds") from error
        except json.JSONDecodeError as error:
            raise ScoreError(f"{path} is not JSON: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ScoreError(
                f'{path} must hold {{"scores": {{name: {{"mean": m, "std": s}}}}}}: {error!r}'
            ) from error

    def save(self, path: Path, **notes: Any) -> None:
        """Write what `load` reads, with notes beside it."""
        scores = {name: {"mean": mean, "std": std} for name, (mean, std) in self.stats.items()}
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps({**notes, "scores": scores}, indent=2) + "\n")
