"""A recipe from elsewhere is data, and nothing in it is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrf.training.kinds import load_recipe
from pyrf.training.recipe import RecipeError


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_a_recipe_runs_no_code(tmp_path: Path, tag: str) -> None:
    made = tmp_path / "made"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"kind: {tag} ['{made}']\n")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(str(recipe))
    assert not made.exists()
