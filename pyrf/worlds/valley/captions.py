"""The caption grammar: many ways to say what a scene shows, any part of it, in any order."""

from __future__ import annotations

import random

from pyrf.worlds.valley.attributes import NAMES, Attributes
from pyrf.worlds.valley.phrases import (
    AFTER,
    BALLOONS,
    BEFORE,
    CAMERAS,
    COLORS,
    EMPTY,
    LANDS,
    OVER,
    PATHS,
    SEASON_CLAUSES,
    SEASONS,
    SPEEDS,
    TIMES,
    WEATHERS,
    normalize,
)


def caption(
    attributes: Attributes, rng: random.Random, *, named: float = 0.85, saying: str | None = None
) -> str:
    """Say a scene, or a part of it, in one of many ways.

    Args:
        named: chance that an attribute is said, each by itself.
        saying: an attribute that is said for certain.
    """
    stated = draw_stated(attributes, rng, named=named)
    if saying is not None:
        stated |= {saying, "camera"} if saying == "speed" else {saying}
    return compose(attributes, stated, rng)


def draw_stated(attributes: Attributes, rng: random.Random, *, named: float = 0.85) -> frozenset[str]:
    """Names of the attributes that a caption is to say; at least one, of those that can be said."""
    can = sayable(attributes)
    stated = _consistent(frozenset(name for name in can if rng.random() < named))
    return stated or frozenset({rng.choice([name for name in can if name != "speed"])})


def sayable(attributes: Attributes) -> tuple[str, ...]:
    """Names of the attributes that have words: no season by the sea, no speed that is left open."""
    unsaid = {name for name in ("season", "path", "speed") if getattr(attributes, name) is None}
    return tuple(name for name in NAMES if name not in unsaid)


def _consistent(stated: frozenset[str]) -> frozenset[str]:
    """A speed is the camera's: it is said with its direction only."""
    return stated - {"speed"} if "camera" not in stated else stated


def compose(attributes: Attributes, stated: frozenset[str], rng: random.Random) -> str:
    """A caption that says the stated attributes and no others, without punctuation."""
    choose = rng.choice
    phrases = []
    place, clauses = _place(attributes, stated, rng)
    flyer = _flyer(attributes, stated, rng)
    if flyer and place and rng.random() < 0.7:
        phrases.append(f"{flyer} {choose(OVER[:6])} {place}")
    else:
        phrases += [part for part in (flyer, place) if part]
    if "balloon" in stated and attributes.balloon is None:
        clauses.append(choose(EMPTY))
    if "weather" in stated:
        clauses.append(choose(WEATHERS[attributes.weather]))
    if "camera" in stated:
        move = choose(CAMERAS[attributes.camera])
        if "speed" in stated and attributes.speed is not None:
            speed = choose(SPEEDS[attributes.speed])
            move = f"{move} {speed}" if rng.random() < 0.75 else f"{speed} {move}"
        clauses.append(move)
    rng.shuffle(clauses)
    before = choose(BEFORE) + " " if phrases and rng.random() < 0.25 else ""
    if clauses and phrases and rng.random() < 0.25:
        text = " ".join([clauses[0], before + phrases[0], *phrases[1:], *clauses[1:]])
    else:
        text = before + " ".join([*phrases, *clauses])
    if rng.random() < 0.15:
        text += " " + choose(AFTER)
    return normalize(text)


def _place(attributes: Attributes, stated: frozenset[str], rng: random.Random) -> tuple[str, list[str]]:
    """The land with the words before it; and clauses of time and season that are said apart."""
    clauses = []
    land = rng.choice(LANDS[attributes.land]) if "land" in stated else ""
    words = []
    if "season" in stated and attributes.season is not None:
        if land and rng.random() < 0.7 and not land.startswith(("a ", "an ", "the ")):
            words.append(rng.choice(SEASONS[attributes.season]))
        elif rng.random() < 0.5 or not land:
            clauses.append(rng.choice(SEASON_CLAUSES[attributes.season]))
        else:
            clauses.append(rng.choice(SEASONS[attributes.season]))
    if "time" in stated:
        clauses.append(rng.choice(TIMES[attributes.time]))
    return " ".join([*words, land]).strip() if land else "", clauses


def _flyer(attributes: Attributes, stated: frozenset[str], rng: random.Random) -> str:
    """The balloon with its colour and path, as far as they are said; empty when neither is."""
    says_color = "balloon" in stated and attributes.balloon is not None
    says_path = "path" in stated and attributes.path is not None
    if not (says_color or says_path):
        return ""
    parts = [rng.choice(("a", "a", "a", "the", "one", ""))]
    if says_color and attributes.balloon is not None:
        parts.append(rng.choice(COLORS[attributes.balloon]))
    parts.append(rng.choice(BALLOONS))
    if says_path and attributes.path is not None:
        parts.append(rng.choice(PATHS[attributes.path]))
    return " ".join(part for part in parts if part)
