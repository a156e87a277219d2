"""Recipes that train an adapter on a bundle: which change it shall make, and for how long it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from pyrf.bundle.hub import has_bundle
from pyrf.evaluation.held_out import bundle_for
from pyrf.extras import require
from pyrf.training.lora.clips import changed_clips
from pyrf.training.lora.network import AdaptedTextToVideo
from pyrf.training.lora.stage import AdapterSettings, AdapterStage
from pyrf.training.lora.twin import twin_lesson, twin_seen
from pyrf.training.needs import FileNeed, Needs
from pyrf.training.recipe import Recipe, StageRecipe
from pyrf.training.runner.stage import Stage
from pyrf.worlds.shapes.world import ShapesWorld


class AdapterRecipe(StageRecipe):
    """An adapter of a bundle's few-step student.

    Attributes:
        bundle: of the shapes world: a name, a directory or a hub id.
        eval_prompts: that ask for it.
    """

    stage: Literal["adapter"]
    bundle: str
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
        clips = changed_clips(bundle, stage.adapter.clips, twin_lesson)
        network = AdaptedTextToVideo(
            bundle, rank=stage.adapter.rank, alpha=stage.adapter.alpha, seed=stage.train.seed
        )
        return AdapterStage(
            stage.adapter,
            network,
            bundle,
            clips,
            batch=stage.train.batch,
            world=world,
            prompts=stage.eval_prompts,
            measure=twin_seen,
        )

    def needs(self, name: str, processes: int, folder: Path | None) -> Needs:
        bundle = self.stages[name].bundle
        return Needs([FileNeed(name, "bundle", bundle, has_bundle(bundle))])
