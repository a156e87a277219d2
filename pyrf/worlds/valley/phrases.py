"""The phrases of captions: what each value of a valley is called, and the words in them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from pyrf.worlds.valley.attributes import NO_BALLOON

Words = dict[str, tuple[str, ...]]

TIMES: Words = {
    "dawn": (
        "at dawn", "at sunrise", "dawn", "sunrise", "at daybreak", "in the early morning", "at first light",
        "in the morning", "as the sun rises", "the sun is rising", "in the morning light", "morning",
    ),
    "noon": (
        "at noon", "at midday", "noon", "midday", "daytime", "at noontime", "at high noon", "by day",
        "in bright daylight", "in broad daylight", "in full sun", "in the afternoon", "in the midday sun",
    ),
    "dusk": (
        "at dusk", "at sunset", "dusk", "sunset", "at sundown", "in the evening", "at twilight", "evening",
        "as the sun sets", "the sun is setting", "in the evening light", "under a setting sun",
    ),
    "night": (
        "at night", "by night", "night", "at midnight", "at nighttime", "in the dead of night", "in the dark",
        "under the moon", "in moonlight", "under the stars", "moonlit", "starlit", "late at night",
    ),
}  # fmt: skip
LANDS: Words = {
    "mountains": (
        "mountains", "mountains", "peaks", "a mountain range", "jagged peaks", "mountain tops", "the alps",
        "an alpine valley", "rocky mountains", "high mountains", "summits", "cliffs", "a mountain landscape",
    ),
    "hills": (
        "hills", "hills", "rolling hills", "meadows", "countryside", "gentle hills", "a hilly landscape",
        "fields", "grassland", "farmland", "a hillside", "pastures",
    ),
    "dunes": (
        "dunes", "dunes", "a desert", "sand dunes", "the desert", "desert dunes", "sands", "the sahara",
        "a sandy desert", "a desert landscape", "mesas",
    ),
    "sea": (
        "the sea", "the sea", "the ocean", "an ocean", "a coast", "the shore", "a beach", "the seaside",
        "a bay", "water", "ocean waves", "a sea", "the coastline", "a seascape", "islands",
    ),
}  # fmt: skip
SEASONS: Words = {
    "green": (
        "green",
        "green",
        "summer",
        "grassy",
        "lush",
        "spring",
        "verdant",
        "leafy",
        "springtime",
        "summery",
    ),
    "autumn": ("autumn", "autumn", "fall", "golden", "autumnal", "orange", "october"),
    "snowy": ("snowy", "snowy", "winter", "snow covered", "white", "frozen", "icy", "wintry"),
}
SEASON_CLAUSES: Words = {
    "green": ("in summer", "in spring", "in june", "covered in grass", "summertime", "springtime"),
    "autumn": (
        "in autumn",
        "in fall",
        "in autumn colors",
        "with autumn leaves",
        "in october",
        "autumn foliage",
    ),
    "snowy": ("in winter", "in the snow", "covered in snow", "under snow", "with snow", "wintertime"),
}
WEATHERS: Words = {
    "clear": (
        "clear sky", "under a clear sky", "cloudless", "no clouds", "clear", "fair weather", "clear weather",
        "a cloudless sky", "with clear air", "without a cloud", "clear skies", "sunny weather",
    ),
    "cloudy": (
        "with clouds", "cloudy", "drifting clouds", "clouds drift by", "clouds in the sky", "a cloudy sky",
        "with drifting clouds", "under clouds", "white clouds", "partly cloudy", "overcast",
    ),
    "foggy": (
        "in fog", "foggy", "misty", "in the mist", "fog", "mist", "hazy", "in haze", "with fog",
        "in dense fog", "through the fog", "foggy weather", "murky",
    ),
}  # fmt: skip
COLORS: Words = {
    "red": ("red", "red", "red", "scarlet", "crimson"),
    "yellow": ("yellow", "yellow", "yellow", "lemon"),
    "blue": ("blue", "blue", "blue", "azure"),
    "purple": ("purple", "purple", "purple", "violet", "lilac"),
}
BALLOONS = (
    "balloon", "balloon", "hot air balloon", "hot air balloon", "aerostat", "hot air ballon", "air balloon",
)  # fmt: skip
EMPTY = (
    "no balloon", "without a balloon", "an empty sky", "nothing in the sky", "no balloons",
    "without balloons", "no balloon in sight", "nothing flies",
)  # fmt: skip
_GO = (
    "drifts", "drifting", "floats", "floating", "flies", "flying", "moves", "moving", "glides", "sails",
    "travels", "gliding", "heads",
)  # fmt: skip
PATHS: Words = {
    "left": tuple(f"{go} {to}" for go in _GO for to in ("left", "to the left", "leftward")),
    "right": tuple(f"{go} {to}" for go in _GO for to in ("right", "to the right", "rightward")),
    "rise": (
        "rises", "rising", "climbs", "climbing", "ascends", "ascending", "goes up", "lifts off", "takes off",
        "floats up", "moves up", "floating upward", "soars up",
    ),
    "sink": (
        "sinks", "sinking", "descends", "descending", "comes down", "lands", "landing", "goes down",
        "floats down", "moves down", "floating downward", "lowers",
    ),
    "hover": (
        "hovers", "hovering", "hangs still", "hangs in the air", "stays in place", "floats in place", "hangs",
        "stands in the air", "hanging", "stays where it is", "hovers in place", "hovers in the air",
    ),
}  # fmt: skip
CAMERAS: Words = {
    "right": (
        "the camera pans right", "panning right", "the camera moves right", "camera moves to the right",
        "flying right", "moving right", "tracking right", "pan right", "camera right", "traveling right",
        "the view slides to the right", "the camera goes right", "the camera flies to the right",
    ),
    "left": (
        "the camera pans left", "panning left", "the camera moves left", "camera moves to the left",
        "flying left", "moving left", "tracking left", "pan left", "camera left", "traveling left",
        "the view slides to the left", "the camera goes left", "the camera flies to the left",
    ),
    "still": (
        "the camera is still", "still camera", "static camera", "the camera does not move", "fixed camera",
        "static shot", "a still shot", "the camera stands still", "locked camera", "no camera motion",
        "the camera is not moving", "the view stays still",
    ),
}  # fmt: skip
SPEEDS: Words = {
    "slow": (
        "slowly",
        "slowly",
        "gently",
        "slow",
        "at a slow pace",
        "calmly",
        "leisurely",
        "at low speed",
        "steadily and slowly",
    ),
    "fast": (
        "fast",
        "fast",
        "quickly",
        "rapidly",
        "swiftly",
        "at high speed",
        "at a fast pace",
        "speedily",
        "very fast",
    ),
}
BEFORE = (
    "a video of", "a cinematic video of", "a shot of", "a cinematic shot of", "a clip of", "footage of",
    "a view of", "a beautiful view of", "a scene with", "an animation of", "a wide shot of", "a landscape of",
    "a picture of", "show me", "an illustration of", "a movie of", "a calm scene of", "a poster of",
)  # fmt: skip
AFTER = (
    "cinematic", "beautiful", "high quality", "4k", "flat design", "illustration", "peaceful", "detailed",
    "scenic", "animated", "vector art", "stunning", "dreamy", "relaxing", "artistic", "hd",
)  # fmt: skip
OVER = ("over", "above", "over", "above", "in front of", "near", "across", "and", "with", "behind it")

TABLES: dict[str, tuple[Words, ...]] = {
    "time": (TIMES,),
    "land": (LANDS,),
    "season": (SEASONS, SEASON_CLAUSES),
    "weather": (WEATHERS,),
    "balloon": (COLORS, {NO_BALLOON: EMPTY}),
    "path": (PATHS,),
    "camera": (CAMERAS,),
    "speed": (SPEEDS,),
}

CHOICES: dict[str, Words] = {
    "time": {"dawn": ("dawn",), "noon": ("noon",), "dusk": ("dusk",), "night": ("night",)},
    "land": {
        "mountains": ("mountains",),
        "hills": ("hills",),
        "dunes": ("dunes",),
        "sea": ("the sea",),
    },
    "season": {"green": ("summer",), "autumn": ("autumn",), "snowy": ("winter",)},
    "weather": {"clear": ("clear sky",), "cloudy": ("cloudy",), "foggy": ("foggy",)},
    "balloon": {
        "red": ("a red balloon",),
        "yellow": ("a yellow balloon",),
        "blue": ("a blue balloon",),
        "purple": ("a purple balloon",),
        NO_BALLOON: ("no balloon",),
    },
    "path": {
        "left": ("drifting left",),
        "right": ("drifting right",),
        "rise": ("rising",),
        "sink": ("sinking",),
        "hover": ("hovering",),
    },
    "camera": {
        "right": ("the camera pans right slowly", "the camera pans right fast"),
        "left": ("the camera pans left slowly", "the camera pans left fast"),
        "still": ("the camera stands still",),
    },
}
"""Attribute -> value -> the phrases that a person is offered for it, in the order of a prompt."""


def normalize(text: str) -> str:
    """Lower case, one space between words, no punctuation: what a word-level tokenizer is given."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub("['\u2019]", "", text)
    return " ".join(re.sub(r"[^\w]|_", " ", text).split())


def vocabulary(kept: Mapping[str, Iterable[str]] | None = None) -> list[str]:
    """Every word that a caption can hold, sorted.

    Args:
        kept: attribute -> the values that scenes have; all of an attribute that is not named.
    """
    kept = kept or {}
    phrases: list[str] = ["a", "an", "the", "one", *BALLOONS, *BEFORE, *AFTER, *OVER]
    for name, tables in TABLES.items():
        for table in tables:
            for value, choices in table.items():
                if value in kept.get(name, table):
                    phrases.extend(choices)
    return sorted(_words(phrases))


def choices(kept: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Attribute -> the phrases that a person may choose from.

    Args:
        kept: attribute -> the values that scenes have.
    """
    return {
        name: tuple(phrase for value in kept[name] for phrase in phrases[value])
        for name, phrases in CHOICES.items()
    }


def words_by_attribute() -> dict[str, dict[str, tuple[str, ...]]]:
    """Attribute -> value -> the phrases that mean it, each once, the plainest first.

    "filler" holds what changes nothing, before and after a caption.
    """
    listed: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, tables in TABLES.items():
        values: dict[str, tuple[str, ...]] = {}
        for table in tables:
            for value, phrases in table.items():
                values[value] = tuple(dict.fromkeys((*values.get(value, ()), *phrases)))
        listed[name] = values
    listed["filler"] = {"before": BEFORE, "after": AFTER}
    return listed


def _words(phrases: Iterable[str]) -> set[str]:
    return {word for phrase in phrases for word in normalize(phrase).split()}
