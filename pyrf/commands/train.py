"""`pyrf train`: make a model by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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

    require_training()
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


def require_training() -> None:
    """What training needs beyond inference is an extra."""
    from importlib.util import find_spec

    missing = [name for name in ("pydantic", "yaml") if find_spec(name) is None]
    if missing:
        raise ValueError(f"training needs {' and '.join(missing)}: pip install 'pyrf[train]'")
