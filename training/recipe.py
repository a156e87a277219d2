"""What every recipe says and can do. A recipe is a YAML file that says how a model is trained, by stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

from pyrf.bundle.bundle import Bundle
from pyrf.config import StreamConfig
from pyrf.settings import Settings, known_fields
from pyrf.training.needs import Needs
from pyrf.training.runner.stage import Stage, TrainSettings

StreamSettings = Annotated[StreamConfig, BeforeValidator(known_fields(StreamConfig))]
"""How a student streams, as a recipe says it."""


class RecipeError(ValueError):
    """A recipe that cannot be run; the message says what to change."""


class StageRecipe(Settings):
    """What all stages say."""

    train: TrainSettings


class Recipe(Settings, ABC):
    """What all recipes say.

    Attributes:
        processes: that share each step's work; under torchrun it is torchrun that says so.
        threads: of torch in each process.
        stages: by name, in the order in which they run. Each keeps its files in a folder of its name.
    """

    kind: str
    processes: int = Field(default=1, gt=0)
    threads: int = Field(default=1, gt=0)
    stages: Mapping[str, StageRecipe]

    def check_stage(self, name: str) -> None:
        """Refuse a stage that the recipe does not have.

        Raises:
            RecipeError: naming those that it has.
        """
        if name not in self.stages:
            raise RecipeError(f"the recipe has no stage {name!r}; its stages are {', '.join(self.stages)}")

    @abstractmethod
    def default_device(self) -> torch.device:
        """Where this process trains."""

    @abstractmethod
    def build_stage(self, name: str, folder: Path) -> Stage[Any]:
        """Load what a stage needs; the stages before it left their files in `folder`.

        Raises:
            FileNotFoundError: when a stage before it has not been run.
            ValueError: when something else is missing, damaged or does not fit.
        """

    @abstractmethod
    def needs(self, name: str, processes: int, folder: Path | None) -> Needs:
        """Count what a stage needs, without loading or downloading anything.

        Args:
            processes: GPUs, or processes on a CPU.
            folder: of the run, for files that stages leave there.
        """

    def restore(self, folder: Path, bundle: Bundle, stage: str) -> None:
        """Leave a bundle's parts in `folder` as the stages before `stage` would leave them.

        Raises:
            RecipeError: where recipes of this kind make no bundles, or the stage starts from nothing.
            ValueError: when the stages before it are there, or the bundle is not one of this recipe.
        """
        raise RecipeError(f"recipes of kind {self.kind} make no bundles, so none can be taken back")

    def make_bundle(self, folder: Path) -> Path | None:
        """Make a bundle of the latest stages in `folder`; None where there is nothing new to make."""
        return None
