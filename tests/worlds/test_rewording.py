"""The phrase of an attribute is found where it stands for that attribute alone."""

import random

import pytest

from pyrf.worlds.rewording import Wordings, reword
from pyrf.worlds.world import WorldPrompt

WORDINGS: Wordings = {
    "sky": ({"clear": ("clear sky",), "white": ("white clouds",)},),
    "ground": ({"white": ("white", "the snow"), "green": ("green", "the lawn")},),
    "way": ({"left": ("moving left",), "right": ("moving right",)},),
    "view": ({"left": ("moving left", "a pan left"), "right": ("a pan right",)},),
}
SNOW = {"ground": "white"}
BOTH = {"sky": "white", "ground": "white"}


@pytest.mark.parametrize(
    ("text", "asks", "change", "expected"),
    [
        ("white hills white clouds", BOTH, ("ground", "green"), "green hills white clouds"),
        ("white hills white clouds", BOTH, ("sky", "clear"), "white hills clear sky"),
        ("whitewashed hills the snow", SNOW, ("ground", "green"), "whitewashed hills the lawn"),
        ("white hills white", SNOW, ("ground", "green"), None),
        ("moving left", {"way": "left", "view": "left"}, ("way", "right"), None),
        ("moving left", {"way": "left"}, ("way", "right"), "moving right"),
        ("moving left", {"view": "left"}, ("view", "right"), None),  # no phrase without an article
    ],
)
def test_one_phrase_is_replaced(
    text: str, asks: dict[str, str], change: tuple[str, str], expected: str | None
) -> None:
    assert reword(WorldPrompt(text, asks), *change, WORDINGS, random.Random(0)) == expected
