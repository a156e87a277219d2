"""Writes the card of a recipe into a shipped bundle, as when its gallery was found by looking at that.

python -m pyrf.training.card valley pyrf/assets/valley
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pyrf.bundle.save import write_card
from pyrf.training.kinds import load_scratch_recipe
from pyrf.training.scratch.ship import card_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", help="a bundled recipe, or a .yaml file; its ship.gallery is written too")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    arguments = parser.parse_args()
    recipe = load_scratch_recipe(arguments.recipe)
    write_card(arguments.bundle, card_of(recipe.world, recipe.ship.gallery))


if __name__ == "__main__":
    main()
