"""Runs a stage of a recipe, in as many processes as it wants."""

from __future__ import annotations

import logging
from pathlib import Path

from pyrf.machine import available_cpus
from pyrf.threads import warn_of_threads
from pyrf.training.recipe import Recipe, RecipeError
from pyrf.training.runner import processes
from pyrf.training.runner.host_state import of_a_training
from pyrf.training.runner.trainer import train

logger = logging.getLogger(__name__)


def run_stage(recipe: Recipe, name: str, folder: Path) -> None:
    """Run or resume one stage, if it is not done; it reads the stages before it from `folder`.

    Raises:
        RecipeError: when the recipe has no such stage, or several GPUs are to be used without torchrun.
        FileNotFoundError: when a stage before it has not been run.
    """
    recipe.check_stage(name)
    on_gpus = recipe.default_device().type == "cuda"
    if on_gpus and recipe.processes > 1 and not processes.under_torchrun():
        raise RecipeError(
            f"{recipe.processes} GPUs need torchrun: torchrun --nproc-per-node {recipe.processes} "
            "--no-python pyrf train ..., or --processes 1"
        )
    cpus = available_cpus()
    if not on_gpus and recipe.threads * recipe.processes > cpus:
        warn_of_threads(recipe.threads * recipe.processes, cpus)
    processes.launch(recipe.processes, _run_stage, recipe, name, folder)


def _run_stage(recipe: Recipe, name: str, folder: Path) -> None:
    """`run_stage` in one of its processes."""
    settings = recipe.stages[name].train
    settings.accumulate(processes.world_size())  # refuse a wrong number of processes before loading anything
    with of_a_training(settings.seed, recipe.threads):
        logger.info("stage %s: %d steps in %s", name, settings.steps, folder / name)
        train(lambda: recipe.build_stage(name, folder), settings, folder / name)
