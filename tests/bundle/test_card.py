"""What a bundle says of its model: written, read, and refused where it is damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from pyrf.bundle import Card, load_bundle, save_bundle
from pyrf.training.scratch.ship import card_of
from pyrf.worlds.choice import WORLDS
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.valley.world import Valley
from tests.support import networks
from tests.support.bundle_checks import edit, refused

CARD = Card(("a", "red", "circle"), ("spins",), ((32, 48),), ("It does not count.",))


def saved(path: Path, card: Card | None) -> Path:
    return save_bundle(
        path,
        transformer=networks.dit(),
        codec=networks.codec(),
        text_encoder=networks.text_encoder(),
        stream_config=networks.STREAM,
        height=32,
        width=48,
        card=card,
    )


def test_a_card_comes_back(tmp_path: Path) -> None:
    path = saved(tmp_path / "b", CARD)
    assert load_bundle(path).card == CARD


def test_a_bundle_without_a_card_says_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "b", None)
    assert "card" not in json.loads((path / "model_index.json").read_text())["pyrf"]
    assert load_bundle(path).card == Card()


def test_another_student_has_the_tokenizers_words_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "b", CARD)
    student = path / "transformer" / "diffusion_pytorch_model.safetensors"
    assert load_bundle(path, student=student).card == Card(("a", "red", "circle", "spins"))


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ([], "card must be an object"),
        ({"words": []}, r"card has unknown entries \['words'\]"),
        ({"vocabulary": "red"}, "vocabulary must be a list, got 'red'"),
        ({"vocabulary": [3]}, "vocabulary must hold strings, got 3"),
        ({"limits": [" "]}, "limits must hold strings"),
        ({"sizes": [64, 96]}, "each of sizes must be a list"),
        ({"sizes": [[64]]}, "a height and a width"),
        ({"sizes": [[64, -1]]}, "each side of sizes must be at least 1"),
        (None, "card must be an object"),
    ],
)
def test_a_damaged_card_is_refused(copied: Path, card: Any, message: str) -> None:
    settings = json.loads((copied / "model_index.json").read_text())["pyrf"]
    edit(copied / "model_index.json", pyrf={**settings, "card": card})
    with pytest.raises(ValueError, match=message) as caught:
        load_bundle(copied)
    assert str(copied / "model_index.json") in str(caught.value)
    assert refused(copied)


@pytest.mark.parametrize("name", WORLDS)
def test_a_worlds_card_parts_its_words(name: str) -> None:
    world = WORLDS[name]()
    card = card_of(world)
    assert sorted((*card.vocabulary, *card.unlearned)) == sorted(world.vocabulary)
    assert card.sizes == ((world.height, world.width),)
    assert card.limits


def test_words_of_what_is_never_drawn_are_not_learned() -> None:
    assert set(card_of(ShapesWorld()).unlearned) == {
        *("circles", "in", "orbiting", "orbits", "place", "rotates", "spinning", "spins", "star", "turns")
    }
    everything = ShapesWorld(("circle", "square", "triangle", "star"), ("up", "orbit", "spin"))
    assert {"left", "bounces"} < set(card_of(everything).unlearned)
    assert "star" in card_of(everything).vocabulary
    assert not card_of(Valley()).unlearned
    assert "sahara" in card_of(Valley(lands=("hills",))).unlearned


def test_captions_hold_learned_words_only() -> None:
    """The tokenizer of every training reads them as they are told."""
    import random

    for world in (ShapesWorld(), ShapesWorld(("star",), ("spin", "orbit"))):
        words = set(card_of(world).vocabulary)
        for seed in range(300):
            assert set(world.scene(seed).caption(random.Random(seed)).split()) <= words


def test_the_bundled_models_card_is_that_of_its_recipe() -> None:
    assert load_bundle("tiny").card == card_of(ShapesWorld())
