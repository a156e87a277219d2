"""A training goes on from the bundle that it shipped, on a machine that has nothing else of it."""

from pathlib import Path

import pytest
import torch

from pyrf.bundle.bundle import load_bundle
from pyrf.bundle.hub import find_bundle
from pyrf.models.codecs.taehv import TAEHVCodec
from pyrf.training.kinds import load_recipe
from pyrf.training.recipe import RecipeError
from pyrf.training.scratch.recipe import ScratchRecipe


@pytest.fixture(scope="module")
def recipe() -> ScratchRecipe:
    loaded = load_recipe("valley")
    assert isinstance(loaded, ScratchRecipe)
    return loaded


def test_network_and_codec_come_back_as_they_were_shipped(recipe: ScratchRecipe, tmp_path: Path) -> None:
    bundle = load_bundle(find_bundle("valley"))
    recipe.restore(tmp_path, bundle, "turns")
    run = recipe.run_in(tmp_path)
    network = run.network_of("causal")
    for name, tensor in bundle.transformer().state_dict().items():
        assert torch.equal(network.dit.state_dict()[name], tensor), name
    prompts = ["a red balloon over dunes at dusk", ""]
    assert torch.equal(network.encode(prompts), bundle.text_encoder().encode(prompts))
    codec = bundle.codec()
    assert isinstance(codec, TAEHVCodec)
    shipped = codec.network
    for name, tensor in run.codec_of("codec").network.state_dict().items():
        assert torch.equal(tensor, shipped.state_dict()[name].float()), name


def test_what_is_there_is_never_overwritten(recipe: ScratchRecipe, tmp_path: Path) -> None:
    bundle = load_bundle(find_bundle("valley"))
    recipe.restore(tmp_path, bundle, "turns")
    with pytest.raises(ValueError, match="holds this stage"):
        recipe.restore(tmp_path, bundle, "turns")


def test_bundles_of_other_worlds_are_refused(recipe: ScratchRecipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another world than valley"):
        recipe.restore(tmp_path, load_bundle(find_bundle("tiny")), "turns")
    assert not list(tmp_path.iterdir())


def test_a_stage_that_starts_from_nothing_takes_no_bundle(recipe: ScratchRecipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="single does not go on from a network"):
        recipe.restore(tmp_path, load_bundle(find_bundle("valley")), "single")
