"""From the stages' files to a bundle, and from a bundle to its scores."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from pyrf.bundle.bundle import load_bundle
from pyrf.bundle.save import save_bundle
from pyrf.evaluation.streams import Student, score_streams
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.training.recipe import Recipe
from pyrf.training.scratch.build import load_codec
from pyrf.training.scratch.networks import load_network
from pyrf.worlds.shapes.scenes import FPS, HEIGHT, WIDTH


def ship(recipe: Recipe, folder: Path, out: Path) -> Path:
    """Write the student that the stages in `folder` made as a bundle `out`.

    Raises:
        FileNotFoundError: when a stage has not been run.
        BundleError: when `out` exists or cannot be written.
    """
    network = load_network(folder / recipe.ship.network)
    return save_bundle(
        out,
        transformer=network.dit,
        codec=load_codec(folder / recipe.ship.codec),
        text_encoder=network.text,
        stream_config=recipe.stream_config,
        height=HEIGHT,
        width=WIDTH,
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


def evaluate(model: str, recipe: Recipe, prompts: int, seconds: float, sheet: Path) -> dict[str, Any]:
    """Accuracy of a bundle's last five seconds on held-out prompts of the recipe's world.

    Args:
        model: name or directory of a bundle made by `ship`.
        sheet: where a contact sheet of the first streams goes.

    Raises:
        ValueError: when the bundle is not one for this world, or the stream is too short to judge.
    """
    if sheet.suffix != ".png":
        raise ValueError(f"the sheet is a PNG picture; give a path that ends in .png, got {sheet}")
    if prompts < 1 or not 9 <= seconds * FPS < math.inf:
        raise ValueError(f"evaluation needs a prompt and 0.6 seconds at least, got {prompts} and {seconds}")
    bundle = load_bundle(model)
    codec = bundle.codec()
    if not isinstance(codec, TAEHVCodec) or (bundle.height, bundle.width) != (HEIGHT, WIDTH):
        raise ValueError(
            f"{model} does not show the shapes world: it makes {bundle.width}x{bundle.height} video"
        )
    student = Student(bundle.transformer(), bundle.text_encoder(), codec, bundle.stream_config)
    return score_streams(student, recipe.world, prompts, sheet, seconds)[0]
