"""From the stages' files to a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from pyrf.bundle.bundle import load_bundle
from pyrf.bundle.card import Card, Shown
from pyrf.bundle.save import save_bundle
from pyrf.files import replace_folder, restore_folder
from pyrf.training.runner.finite import check_finite
from pyrf.training.scratch.run import Run
from pyrf.worlds.world import World


def card_of(world: World, gallery: Sequence[Shown] = ()) -> Card:
    """What a model that learned a world knows: the words of its captions, and one size of frames.

    Args:
        gallery: prompts that the model shows well, with their seeds.
    """
    taught = set(world.taught)
    return Card(
        vocabulary=tuple(word for word in world.vocabulary if word in taught),
        unlearned=tuple(word for word in world.vocabulary if word not in taught),
        sizes=((world.height, world.width),),
        limits=tuple(world.limits),
        choices={name: tuple(phrases) for name, phrases in world.choices.items()},
        gallery=tuple(gallery),
    )


def ship(run: Run, network: str, codec: str, card: Card, dtype: torch.dtype, out: Path) -> Path:
    """Write the student that a run made as a bundle.

    Args:
        network, codec: the stages whose network and codec it takes.
        card: what the student knows.
        dtype: of the stored weights.
        out: the bundle's folder, which must be new.

    Raises:
        FileNotFoundError: when a stage has not been run.
        DivergedError: when a weight is not finite.
        BundleError: when `out` exists or cannot be written.
    """
    student, decoder = run.network_of(network), run.codec_of(codec)
    check_finite(student.state_dict(), f"{run.folder / network}: not shipped")
    check_finite(decoder.network.state_dict(), f"{run.folder / codec}: not shipped")
    for module in (student, decoder.network):
        module.to(dtype)
    return save_bundle(
        out,
        transformer=student.dit,
        codec=decoder,
        text_encoder=student.text,
        stream_config=run.stream,
        height=run.world.height,
        width=run.world.width,
        card=card,
    )


def ship_latest(run: Run, network: str, codec: str, card: Card, dtype: torch.dtype) -> Path | None:
    """Ship to the run's `bundle`, in place of an older one; None where that has the latest stages and card.

    The older bundle stays until the new one is whole. A process that dies while they change places leaves
    both, and the next call puts one back.

    Raises:
        FileNotFoundError, DivergedError, BundleError: as `ship`.
    """
    bundle, fresh = run.folder / "bundle", run.folder / ".bundle.new"
    restore_folder(bundle)
    sources = (
        run.folder / network / "network.safetensors",
        run.folder / codec / "diffusion_pytorch_model.safetensors",
    )
    if bundle.exists():
        made = (bundle / "model_index.json").stat().st_mtime
        if all(file.stat().st_mtime <= made for file in sources) and load_bundle(bundle).card == card:
            return None
    shutil.rmtree(fresh, ignore_errors=True)
    ship(run, network, codec, card, dtype, fresh)
    replace_folder(bundle, fresh)
    return bundle
