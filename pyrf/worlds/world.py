"""What a world is: scenes to learn from, prompts that were held out, and a judge of videos."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""A clip, uint8 [T, H, W, 3]."""
Facts = Mapping[str, str | None]
"""Attribute -> its value; None where any value is right, as with a speed that a caption leaves open."""


@dataclass(frozen=True)
class WorldPrompt:
    """A text and what it asks for; attributes that it does not state are not among `asks`."""

    text: str
    asks: Facts


class Subject(NamedTuple):
    """Where a thing is: a disc, x and y of its middle from the frame's upper left corner, in pixels."""

    x: float
    y: float
    radius: float


class Scene(Protocol):
    """One endless video. It is a closed form of time, so any stretch can be drawn by itself."""

    @property
    def facts(self) -> Facts:
        """All that a prompt could ask of this scene."""
        ...

    @property
    def speed_is_open(self) -> bool:
        """Whether it moves at a speed that its captions do not name."""
        ...

    def caption(self, rng: random.Random, /) -> str:
        """One of many wordings, which may leave attributes out."""
        ...

    def subjects(self, frame: int, /) -> Sequence[Subject]:
        """Small things that the eye follows in this frame, which may be none."""
        ...

    def render(self, start: int, frames: int, /) -> Frames:
        """Draw the frames start .. start + frames - 1, uint8 [frames, height, width, 3]."""
        ...


class Turn(NamedTuple):
    """A scene that another value of one attribute makes of one under way; its captions name that value."""

    scene: Scene
    caption: Callable[[random.Random], str]


class World(Protocol):
    """A world is a frozen dataclass: its fields are the settings that a recipe may give.

    Two worlds with the same `repr` draw the same scenes: files that are made of scenes are marked by it.
    """

    @property
    def name(self) -> str:
        """What recipes and messages call it."""
        ...

    @property
    def fps(self) -> int:
        """Frames per second."""
        ...

    @property
    def height(self) -> int:
        """Pixels of a frame."""
        ...

    @property
    def width(self) -> int: ...

    @property
    def vocabulary(self) -> Sequence[str]:
        """Every word that a caption can hold."""
        ...

    @property
    def taught(self) -> Sequence[str]:
        """Those words of the vocabulary that captions of its scenes do hold."""
        ...

    @property
    def limits(self) -> Sequence[str]:
        """What a model that learned this world cannot show, in sentences for people."""
        ...

    @property
    def choices(self) -> Mapping[str, Sequence[str]]:
        """A group's name -> phrases of its captions that exclude each other, in the order of a prompt."""
        ...

    @property
    def criteria(self) -> Sequence[str]:
        """Every name that `judge` may give, in the order of reports."""
        ...

    def draw(self, rng: random.Random, *, open_speed: bool = False) -> Scene:
        """Draw a scene; with `open_speed`, one that moves at a speed that its captions do not name."""
        ...

    def scene(self, seed: int) -> Scene:
        """The scene that `draw` gives first for a generator of this seed."""
        ...

    def held_out(self, count: int, *, open_speed: bool = False) -> list[WorldPrompt]:
        """The same prompts for the same count, from seeds that training never draws.

        Args:
            open_speed: every prompt asks for motion and none names a speed.
        """
        ...

    def scene_for(self, prompt: WorldPrompt, rng: random.Random, /) -> Scene:
        """Draw a scene that shows what a prompt asks for; what the prompt leaves open is drawn freely."""
        ...

    def changed(self, prompt: WorldPrompt, rng: random.Random, /) -> WorldPrompt | None:
        """The prompt with another value of one attribute, drawn by `rng`; its other words stay.

        Returns None where no attribute can be changed by itself.
        """
        ...

    def turned(self, seed: int, frame: int, rng: random.Random, /) -> Turn | None:
        """The scene of a seed as it goes on from a frame with another value of one attribute, drawn by `rng`.

        All else stays as it was: places and hues, as far as the attribute does not make them. Returns None
        where no attribute has another value.
        """
        ...

    def judge(self, frames: Frames, prompt: WorldPrompt, /) -> dict[str, bool]:
        """Say what is true of a clip.

        Each attribute that the prompt asks for has a verdict under its name: whether the clip shows it. A
        world may add criteria of its own.
        """
        ...


@runtime_checkable
class MeasuredWorld(World, Protocol):
    """A world that can say how streams of its own go."""

    @property
    def followed(self) -> Sequence[str]:
        """Criteria of `judge` that say how well streams follow their prompts."""
        ...

    def measure(self, video: Frames, /) -> dict[str, float]:
        """The "dynamic", "drift" and "permanence" of a stream of 2 seconds or more, uint8 [T, H, W, 3]."""
        ...

    def is_broken(self, clip: Frames, /) -> bool:
        """Whether a clip, uint8 [T, H, W, 3], shows nothing of the world, or does not go on in itself."""
        ...


def draw_scene(world: World, seed: int) -> tuple[Scene, random.Random]:
    """The scene of a seed and the generator that drew it, for captions and times."""
    rng = random.Random(seed)
    return world.draw(rng), rng
