"""`pyrf train` and `pyrf eval`: make a model, and judge it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pyrf.commands.options import ModelOption


def train(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe (tiny), or a .yaml file.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, logs, pictures and the bundle.")],
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; may be repeated. By default all, in order.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes to train with; by default the recipe's.")
    ] = None,
) -> None:
    """Train by a recipe; the same command resumes. All stages done, the bundle is written to OUT/bundle."""
    import logging

    _require_training()
    from pyrf.training.recipe import load_recipe, run_stage
    from pyrf.training.ship import ship

    chosen = load_recipe(recipe)
    if processes is not None:
        if processes < 1:
            raise ValueError(f"--processes must be at least 1, got {processes}")
        chosen.processes = processes
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in stage or chosen.stages:
        run_stage(chosen, name, out)
    bundle = out / "bundle"
    if stage is None and not bundle.exists():
        typer.echo(
            f"{ship(chosen, out, bundle)}: try it with pyrf generate PROMPT --model {bundle} -o out.mp4"
        )


def evaluate(
    model: ModelOption = "tiny",
    recipe: Annotated[str, typer.Option(help="The recipe whose world the prompts are from.")] = "tiny",
    prompts: Annotated[int, typer.Option(help="Held-out prompts.")] = 200,
    seconds: Annotated[float, typer.Option(help="Length of the streams; the last 5 s are judged.")] = 5.0,
    sheet: Annotated[Path, typer.Option(help="Where a contact sheet of 12 streams goes.")] = Path("eval.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge how well a bundle of the shapes world follows held-out prompts."""
    _require_training()
    from pyrf.training.recipe import load_recipe
    from pyrf.training.ship import evaluate as score
    from pyrf.video import check_output

    check_output(str(sheet))
    scores = score(model, load_recipe(recipe), prompts, seconds, sheet)
    if as_json:
        typer.echo(json.dumps(scores))
    else:
        typer.echo(f"{prompts} held-out prompts, {seconds:g} s streams, last 5 s judged; pictures in {sheet}")
        for name, value in scores.items():
            typer.echo(f"  {name:<16} {100 * value:5.1f} %")


def _require_training() -> None:
    """What training needs beyond inference is an extra."""
    from importlib.util import find_spec

    missing = [name for name in ("pydantic", "yaml") if find_spec(name) is None]
    if missing:
        raise ValueError(f"training needs {' and '.join(missing)}: pip install 'pyrf[train]'")
