"""Every kind of recipe, and how one is loaded."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from pyrf.files import expanded
from pyrf.settings import first_problem
from pyrf.training.lora.recipe import LoraRecipe
from pyrf.training.recipe import Recipe, RecipeError
from pyrf.training.scratch.recipe import ScratchRecipe
from pyrf.training.wan.recipe import WanRecipe

KINDS: dict[str, type[Recipe]] = {"scratch": ScratchRecipe, "lora": LoraRecipe, "wan": WanRecipe}
OLDER = {"shapes": "scratch"}
"""Names of kinds that older recipes give."""


def load_recipe(name: str) -> Recipe:
    """A recipe by the name of one that is bundled, or by the path of a YAML file.

    Raises:
        RecipeError: when there is none, or it does not say what a recipe must.
    """
    bundled = resources.files("pyrf.training") / "recipes"
    path = Path(expanded(name)) if name.endswith((".yaml", ".yml")) else bundled / f"{name}.yaml"
    if not path.is_file():
        known = sorted(f.name.removesuffix(".yaml") for f in bundled.iterdir() if f.name.endswith(".yaml"))
        raise RecipeError(f"no recipe {name!r}; bundled are {', '.join(known)}, or give a .yaml file")
    try:
        values = yaml.safe_load(path.read_text())
        given = values.pop("kind", "scratch") if isinstance(values, dict) else "scratch"
        kind = OLDER.get(given, given) if isinstance(given, str) else None
        if kind not in KINDS:
            raise RecipeError(f"{name}: kind must be one of {', '.join(KINDS)}, got {given!r}")
        return KINDS[kind].model_validate(values)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise RecipeError(f"{name}: {first_problem(error)}") from error


def load_scratch_recipe(name: str) -> ScratchRecipe:
    """`load_recipe` where only a training from nothing will do, which has a world.

    Raises:
        RecipeError: also when the recipe is of another kind.
    """
    recipe = load_recipe(name)
    if not isinstance(recipe, ScratchRecipe):
        raise RecipeError(f"{name} is a recipe of kind {recipe.kind}; this needs one of kind scratch")
    return recipe
