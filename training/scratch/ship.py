"""From the stages' files to a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

from pyrf.bundle.bundle import save_bundle
from pyrf.training.recipe import Recipe
from pyrf.training.scratch.build import load_codec
from pyrf.training.scratch.networks import load_network


def ship(recipe: Recipe, folder: Path, out: Path) -> Path:
    """Write the student that the stages in `folder` made as a bundle `out`.

    Raises:
        FileNotFoundError: when a stage has not been run.
        BundleError: when `out` exists or cannot be written.
    """
    network = load_network(folder / recipe.ship.network, recipe.world.vocabulary)
    return save_bundle(
        out,
        transformer=network.dit,
        codec=load_codec(folder / recipe.ship.codec),
        text_encoder=network.text,
        stream_config=recipe.stream_config,
        height=recipe.world.height,
        width=recipe.world.width,
    )


def ship_latest(recipe: Recipe, folder: Path) -> Path | None:
    """Ship to `folder / "bundle"`, in place of an older one; None where that is of the latest stages.

    Raises:
        FileNotFoundError: when a stage has not been run.
        BundleError: when it cannot be written.
    """
    bundle, fresh = folder / "bundle", folder / ".bundle.new"
    sources = (
        folder / recipe.ship.network / "network.safetensors",
        folder / recipe.ship.codec / "diffusion_pytorch_model.safetensors",
    )
    if bundle.exists():
        made = (bundle / "model_index.json").stat().st_mtime
        if all(file.stat().st_mtime <= made for file in sources):
            return None
    shutil.rmtree(fresh, ignore_errors=True)
    ship(recipe, folder, fresh)
    if bundle.exists():
        shutil.rmtree(bundle)
    return fresh.rename(bundle)
