"""What a bundle says of its model: written, read, and refused where it is damaged."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pyrf.bundle import BundleError, Card, Shown, load_bundle, save_bundle
from pyrf.bundle.save import write_card
from pyrf.training.card import main as write_card_of_recipe
from pyrf.training.kinds import load_scratch_recipe
from pyrf.training.scratch.ship import card_of
from pyrf.worlds.choice import WORLDS
from pyrf.worlds.shapes.world import ShapesWorld
from pyrf.worlds.valley import phrases
from pyrf.worlds.valley.world import Valley
from tests.support import networks
from tests.support.bundle_checks import edit, refused

CARD = Card(
    ("a", "red", "circle"),
    ("spins",),
    ((32, 48),),
    ("It does not count.",),
    {"color": ("red",), "shape": ("a circle", "a square")},
    (Shown("a red circle", 7), Shown("a circle", 0)),
)

SMALL_VALLEY = Valley(lands=("sea",), balloons=("red",), paths=("rise",), cameras=("still",), empty=0)


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


def test_a_card_has_a_prompt_to_begin_with() -> None:
    assert CARD.example == "a red circle"
    assert Card(choices={"time": ("dawn", "noon"), "land": ("dunes",)}).example == "dawn, dunes"
    assert Card().example is None


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
        ({"choices": ["dawn"]}, "choices must be an object, got"),
        ({"choices": {"time": "dawn"}}, "choices of 'time' must be a list, got 'dawn'"),
        ({"choices": {"time": []}}, "choices of 'time' must hold a phrase"),
        ({"choices": {"time": ["dawn", 3]}}, "each of choices of 'time' must be a string, got 3"),
        ({"choices": {" ": ["dawn"]}}, "each name of choices must be a string, got ' '"),
        ({"choices": {"t" * 41: ["dawn"]}}, "each name of choices may have 40 characters, got 41"),
        ({"choices": {"time": ["d" * 81]}}, "each of choices of 'time' may have 80 characters, got 81"),
        ({"choices": {"time": ["dawn"] * 33}}, "choices of 'time' may have 32 entries, got 33"),
        ({"choices": {f"group {i}": [f"{i}"] for i in range(17)}}, "choices may have 16 entries, got 17"),
        ({"choices": {"time": ["dawn"], "light": ["dawn"]}}, "hold a phrase once, got 'dawn' again"),
        ({"gallery": {"prompt": "dawn", "seed": 0}}, "gallery must be a list"),
        ({"gallery": ["dawn"]}, "each of gallery must be a prompt and a seed, got 'dawn'"),
        ({"gallery": [{"prompt": "dawn"}]}, "each of gallery must be a prompt and a seed"),
        (
            {"gallery": [{"prompt": "dawn", "seed": 0, "by": "me"}]},
            "each of gallery must be a prompt and a seed",
        ),
        ({"gallery": [{"prompt": "", "seed": 0}]}, "each prompt of gallery must be a string, got ''"),
        ({"gallery": [{"prompt": "d" * 501, "seed": 0}]}, "each prompt of gallery may have 500 characters"),
        (
            {"gallery": [{"prompt": "dawn", "seed": "7"}]},
            "each seed of gallery must be a whole number, got '7'",
        ),
        ({"gallery": [{"prompt": "dawn", "seed": -1}]}, "each seed of gallery must be at least 0"),
        ({"gallery": [{"prompt": "dawn", "seed": 2**53}]}, "each seed of gallery must be at most"),
        ({"gallery": [{"prompt": "dawn", "seed": 0}] * 33}, "gallery may have 32 entries, got 33"),
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


@pytest.mark.parametrize("model", ["tiny", "valley"])
def test_the_bundled_models_card_is_that_of_its_recipe(model: str) -> None:
    """After a change of either: `python -m pyrf.training.card MODEL pyrf/assets/MODEL`."""
    recipe = load_scratch_recipe(model)
    card = load_bundle(model).card
    assert card == card_of(recipe.world, recipe.ship.gallery)
    known = {word for shown in card.gallery for word in re.findall(r"\w+", shown.prompt.lower())}
    assert known <= set(card.vocabulary)


def test_a_shipped_bundle_gets_the_card_of_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else in its folder stays as it was."""
    bundle = tmp_path / "tiny"
    shutil.copytree(load_bundle("tiny").path, bundle)
    before = {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()}
    write_card(bundle, CARD)
    assert load_bundle(bundle).card == CARD
    monkeypatch.setattr("sys.argv", ["card", "tiny", str(bundle)])
    write_card_of_recipe()
    assert {file: file.read_bytes() for file in bundle.rglob("*") if file.is_file()} == before


def test_another_models_folder_gets_no_card(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model_index\.json: missing"):
        write_card(tmp_path, CARD)
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(BundleError, match="no bundle of pyrf, so it has no place for a card"):
        write_card(tmp_path, CARD)


@pytest.mark.parametrize("world", [ShapesWorld(), ShapesWorld(("star",), ("spin",)), Valley(), SMALL_VALLEY])
def test_choices_are_read_by_the_model(world: ShapesWorld | Valley) -> None:
    """Every phrase is made of learned words, so a model knows whatever a person picks."""
    card = card_of(world)
    phrases = [phrase for group in card.choices.values() for phrase in group]
    assert {word for phrase in phrases for word in phrase.split()} <= set(card.vocabulary)


def test_choices_name_what_the_world_draws() -> None:
    choices = card_of(SMALL_VALLEY).choices
    assert list(choices) == ["time", "land", "season", "weather", "balloon", "path", "camera"]
    assert (choices["land"], choices["season"]) == (("the sea",), ("summer", "autumn", "winter"))
    assert (choices["balloon"], choices["path"]) == (("a red balloon",), ("rising",))
    assert choices["camera"] == ("the camera stands still",)
    assert card_of(ShapesWorld(("star",), ("spin",))).choices["motion"] == ("spins",)


def test_each_choice_of_the_valley_means_its_value() -> None:
    """A phrase is one of the captions' own for its value, or made of those."""
    for name, values in phrases.CHOICES.items():
        for value, offered in values.items():
            known = phrases.words_by_attribute()[name][value]
            for phrase in offered:
                assert any(phrases.normalize(one) in phrase for one in known), (name, value, phrase)
