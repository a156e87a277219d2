"""The world as trainings, judges and pages use it: scenes, words, held-out prompts, a verdict on a clip."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pyrf.worlds.valley import captions
from pyrf.worlds.valley.attributes import FPS, HEIGHT, SPEEDS, WIDTH, Attributes, Choices
from pyrf.worlds.valley.detector import detect
from pyrf.worlds.valley.scene import Scene

EVERYTHING_SAID = 0.65
"""Share of the held-out prompts that say all there is to say."""


@dataclass(frozen=True)
class Prompt:
    """A caption and what it says.

    Attributes:
        stated: names of the attributes that the text speaks of; only those are judged.
    """

    text: str
    attributes: Attributes
    stated: frozenset[str]


@dataclass(frozen=True)
class Valley:
    """Layered landscapes under a moving camera, with a hot air balloon.

    Attributes:
        choices: the part of the world that scenes and prompts are drawn from.
    """

    choices: Choices = field(default_factory=Choices)

    name = "valley"
    fps = FPS
    height = HEIGHT
    width = WIDTH

    @property
    def vocabulary(self) -> list[str]:
        """Every word that a caption can hold, sorted."""
        return captions.vocabulary()

    def scene(self, seed: int) -> Scene:
        """The scene of a seed; the same seed gives the same scene for ever."""
        rng = random.Random(seed)
        return Scene(self.choices.sample(rng), rng)

    def held_out(self, count: int, seed: int = 77) -> list[Prompt]:
        """Prompts in which each attribute's values come equally often, from seeds that no scene has."""
        choices = self.choices
        columns: dict[str, list[str | None]] = {
            name: _balanced(values, count, f"held out {seed} {name}")
            for name, values in {
                "time": choices.times,
                "land": choices.lands,
                "season": choices.seasons,
                "weather": choices.weathers,
                "balloon": (*choices.balloons, *((None,) if choices.empty else ())),
                "path": choices.paths,
                "camera": choices.cameras,
                "speed": tuple(SPEEDS),
            }.items()
        }
        prompts = []
        for number in range(count):
            values = {name: column[number] for name, column in columns.items()}
            if values["land"] not in ("mountains", "hills"):
                values["season"] = None
            if values["balloon"] is None:
                values["path"] = None
            if values["camera"] == "still":
                values["speed"] = None
            attributes = Attributes(**values)  # type: ignore[arg-type]
            rng = random.Random(f"held out {seed} {number}")
            named = 1.0 if rng.random() < EVERYTHING_SAID else 0.7
            stated = captions.draw_stated(attributes, rng, named=named)
            prompts.append(Prompt(captions.compose(attributes, stated, rng), attributes, stated))
        return prompts

    def judge(self, frames: NDArray[np.uint8], prompt: Prompt) -> dict[str, bool]:
        """Attribute -> whether a clip, uint8 [T, 192, 320, 3], shows what the prompt says of it."""
        right = detect(frames).matches(prompt.attributes)
        return {name: right[name] for name in right if name in prompt.stated}


def _balanced(values: Sequence[str | None], count: int, seed: str) -> list[str | None]:
    column = [values[number % len(values)] for number in range(count)]
    random.Random(seed).shuffle(column)
    return column
