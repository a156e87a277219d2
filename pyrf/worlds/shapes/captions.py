"""The caption grammar: many ways to say what a scene shows."""

from __future__ import annotations

import random
from collections.abc import Iterable

from pyrf.worlds.rewording import Wordings
from pyrf.worlds.shapes.attributes import BACKGROUNDS, COLORS, SIZES, Attributes

SHAPE_WORDS = {
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
}
COLOR_WORDS = {name: (name,) for name in COLORS} | {"purple": ("purple", "purple", "violet")}
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "huge")}
SPEED_WORDS = {"slow": ("slowly", "slowly", "gently"), "fast": ("quickly", "quickly", "fast", "rapidly")}
_GO = ("moves", "moves", "moving", "goes", "slides", "travels", "flies")
MOTION_WORDS = {
    "right": tuple(f"{go} {to}" for go in _GO for to in ("right", "to the right")),
    "left": tuple(f"{go} {to}" for go in _GO for to in ("left", "to the left")),
    "up": (*(f"{go} {to}" for go in _GO for to in ("up", "upwards")), "rises"),
    "down": (*(f"{go} {to}" for go in _GO for to in ("down", "downwards")), "falls"),
    "bounce": ("bounces", "bouncing", "bounces around", "bouncing around", "bounces off the walls"),
    "still": ("stays still", "stands still", "does not move", "is still", "at rest", "is not moving"),
    "orbit": ("orbits", "orbiting", "circles around", "goes around in circles", "moves in circles"),
    "spin": ("spins", "spins in place", "spinning in place", "rotates", "turns in place"),
}

WORDINGS: Wordings = {
    "color": (COLOR_WORDS,),
    "shape": (SHAPE_WORDS,),
    "size": (SIZE_WORDS,),
    "motion": (MOTION_WORDS,),
    "speed": (SPEED_WORDS,),
    "background": ({name: (name,) for name in BACKGROUNDS},),
}
"""Attribute -> its tables of phrases."""
MOTION_CHOICES = {
    "right": "moves right",
    "left": "moves left",
    "up": "moves up",
    "down": "moves down",
    "bounce": "bounces",
    "still": "stays still",
    "orbit": "moves in circles",
    "spin": "spins",
}
"""Motion -> the phrase that a person is offered for it."""


def caption(attributes: Attributes, rng: random.Random, *, named: float = 0.65) -> str:
    """Say the attributes in one of many ways.

    Args:
        named: chance that size, and likewise background, is named at all.
    """
    color = rng.choice(COLOR_WORDS[attributes.color])
    shape = rng.choice(SHAPE_WORDS[attributes.shape])
    size = rng.choice(SIZE_WORDS[attributes.size]) + " " if rng.random() < named else ""
    motion = rng.choice(MOTION_WORDS[attributes.motion])
    article = rng.choice(("", "a ", "a ", "the "))
    subject = (
        f"{article}{size}{shape} that is {color}" if rng.random() < 0.1 else f"{article}{size}{color} {shape}"
    )
    if attributes.speed is not None:
        speed = rng.choice(SPEED_WORDS[attributes.speed])
        motion = f"{motion} {speed}" if rng.random() < 0.7 else f"{speed} {motion}"
    sentence = f"{subject} {motion}"
    if rng.random() >= named:
        return sentence
    place = f"{rng.choice(('on a', 'over a', 'against a'))} {attributes.background} background"
    return f"{sentence} {place}" if rng.random() < 0.75 else f"{place} {sentence}"


def vocabulary(
    shapes: Iterable[str] = tuple(SHAPE_WORDS), motions: Iterable[str] = tuple(MOTION_WORDS)
) -> list[str]:
    """Every word that a caption of some shapes and motions can hold, sorted; by default of all."""
    phrases = [*BACKGROUNDS, "a the that is on over against background"]
    for table in (COLOR_WORDS, SIZE_WORDS, SPEED_WORDS):
        for choices in table.values():
            phrases.extend(choices)
    for names, table in ((shapes, SHAPE_WORDS), (motions, MOTION_WORDS)):
        for name in names:
            phrases.extend(table[name])
    return sorted({word for phrase in phrases for word in phrase.split()})


def choices(shapes: Iterable[str], motions: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The phrases that a person may choose from, by group; in the order of the groups they make a caption."""
    return {
        "size": tuple(SIZES),
        "color": tuple(COLORS),
        "shape": tuple(shapes),
        "motion": tuple(MOTION_CHOICES[motion] for motion in motions),
        "speed": ("slowly", "fast"),
        "background": tuple(f"on a {background} background" for background in BACKGROUNDS),
    }
