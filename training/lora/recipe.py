"""Recipes that train an adapter on a bundle: which change it shall make, and for how long it learns."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator

from pyrf.bundle.hub import has_bundle
from pyrf.evaluation.held_out import bundle_for
from pyrf.extras import require
from pyrf.settings import Settings
from pyrf.training.lora.clips import changed_clips
from pyrf.training.lora.network import AdaptedTextToVideo
from pyrf.training.lora.recolor import recolor, turned
from pyrf.training.lora.stage import AdapterSettings, AdapterStage
from pyrf.training.needs import FileNeed, Needs
from pyrf.training.recipe import Recipe, StageRecipe
from pyrf.training.runner.stage import Stage
from pyrf.worlds.shapes.attributes import BACKGROUNDS, COLORS, Attributes
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.world import Frames, Scene

_Channel = Annotated[int, Field(ge=0, le=255)]


class Recolored(Settings):
    """A colour of the shapes world that is drawn as another, whatever its word is.

    Attributes:
        color: of a shape.
        becomes: red, green and blue, 0..255.
    """

    color: str
    becomes: tuple[_Channel, _Channel, _Channel]

    @field_validator("color")
    @classmethod
    def _a_color(cls, color: str) -> str:
        if color not in COLORS:
            raise ValueError(f"there is no colour {color!r}; there are {', '.join(COLORS)}")
        return color

    def change(self, frames: Frames, scene: Scene) -> Frames | None:
        """See `pyrf.training.lora.clips.Change`. On a background of the new colour the shape stays seen."""
        ground = BACKGROUNDS.get(scene.facts["background"] or "")
        if scene.facts["color"] != self.color or ground == self.becomes:
            return None
        return recolor(frames, self.color, self.becomes)


@dataclass(frozen=True, repr=False)
class OneColorOften(ShapesWorld):
    """The shapes world, with one colour in about half of its scenes."""

    often: str = "blue"

    def sample(self, rng: random.Random) -> Attributes:
        attributes = super().sample(rng)
        return replace(attributes, color=self.often) if rng.random() < 0.4 else attributes


class AdapterRecipe(StageRecipe):
    """An adapter of a bundle's few-step student.

    Attributes:
        bundle: of the shapes world: a name, a directory or a hub id.
        recolor: what it shall draw otherwise.
        eval_prompts: that ask for it.
    """

    stage: Literal["adapter"]
    bundle: str
    recolor: Recolored
    adapter: AdapterSettings
    eval_prompts: list[str] = Field(min_length=1, max_length=64)


class LoraRecipe(Recipe):
    """Adapters that are trained on bundles. Each stage leaves an `adapter.safetensors` in its folder."""

    kind: Literal["lora"] = "lora"
    stages: dict[str, AdapterRecipe] = Field(min_length=1)

    def default_device(self) -> torch.device:
        """The bundles of small worlds are small: the CPU."""
        return torch.device("cpu")

    def build_stage(self, name: str, folder: Path) -> Stage[Any]:
        require("lora", "training an adapter", "peft")
        stage = self.stages[name]
        world = ShapesWorld()
        bundle = bundle_for(stage.bundle, world)
        shapes = OneColorOften(often=stage.recolor.color)
        clips = changed_clips(bundle, shapes, stage.adapter.clips, stage.recolor.change)
        network = AdaptedTextToVideo(
            bundle, rank=stage.adapter.rank, alpha=stage.adapter.alpha, seed=stage.train.seed
        )
        measure = partial(turned, color=stage.recolor.color, becomes=stage.recolor.becomes)
        return AdapterStage(
            stage.adapter,
            network,
            bundle,
            clips,
            batch=stage.train.batch,
            world=world,
            prompts=stage.eval_prompts,
            measure=measure,
        )

    def needs(self, name: str, processes: int, folder: Path | None) -> Needs:
        bundle = self.stages[name].bundle
        return Needs([FileNeed(name, "bundle", bundle, has_bundle(bundle))])
