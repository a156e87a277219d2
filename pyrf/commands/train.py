"""`pyrf train`: make a model by a recipe."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyrf import printing
from pyrf.commands.options import check_named
from pyrf.extras import require
from pyrf.files import expanded

if TYPE_CHECKING:
    from pyrf.training.recipe import Recipe


def train(
    recipe: Annotated[
        str, typer.Argument(help="A bundled recipe (tiny, tiny-lora, wan-1.3b-ode, ...), or a .yaml file.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints, logs, pictures and what is made.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; may be repeated. By default all, in order.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "--gpus",
            min=1,
            help="Processes to train with, one per GPU; by default the recipe's, under torchrun torchrun's.",
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option("--from", help="With --stage: go on from network and codec of this bundle."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, memory, steps and files; train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print one JSON object.")] = False,
) -> None:
    """Train by a recipe; the same command resumes. All of tiny's stages done, its bundle is OUT/bundle."""
    if out is not None:
        check_named("--out", out)
    require_training()
    from pyrf.training.kinds import load_recipe

    out = None if out is None else Path(expanded(out))
    chosen = load_recipe(recipe)
    for name in stage or ():
        chosen.check_stage(name)
    if processes is not None:
        chosen.processes = processes
    if dry_run:
        _dry_run(recipe, chosen, stage, out, as_json)
        return
    if out is None:
        raise ValueError("--out is missing; name a folder for checkpoints, logs and what is made")
    if bundle is not None:
        _take(chosen, stage, bundle, out)
    _train(chosen, stage, out)


def _take(recipe: Recipe, stages: list[str] | None, name: str, out: Path) -> None:
    from pyrf.bundle.bundle import load_bundle
    from pyrf.bundle.hub import find_bundle

    if not stages:
        raise ValueError("--from goes with --stage: name what is to be trained from there")
    recipe.restore(out, load_bundle(find_bundle(name)), stages[0])


def _dry_run(name: str, recipe: Recipe, stages: list[str] | None, out: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from pyrf.training.dry_run import plan, show

    counted = plan(recipe, recipe.processes, out, stages)
    if as_json:
        printing.deliver(json.dumps(counted.to_dict()))
    else:
        show(name, counted, Console())


def _train(recipe: Recipe, stages: list[str] | None, out: Path) -> None:
    import logging

    from pyrf.training.run import run_stage

    speaks = os.environ.get("RANK", "0") == "0"
    level = logging.INFO if speaks else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s")
    for name in stages or recipe.stages:
        run_stage(recipe, name, out)
    if stages is None and speaks:
        bundle = recipe.make_bundle(out)
        if bundle is not None:
            printing.say(f"{bundle}: try it with pyrf generate PROMPT --model {bundle} -o out.mp4")


def require_training() -> None:
    """What training needs beyond inference is an extra."""
    require("train", "training", "pydantic", "yaml", "tensorboard")
