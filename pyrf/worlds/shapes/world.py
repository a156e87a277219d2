"""The shapes world: one shape on a soft background, and the detector as its judge."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import ClassVar

from pyrf.worlds.rewording import change
from pyrf.worlds.shapes import captions, grading
from pyrf.worlds.shapes.attributes import (
    BACKGROUNDS,
    COLORS,
    FPS,
    HEIGHT,
    MOTIONS,
    SHAPES,
    SIZES,
    SPEEDS,
    WIDTH,
    Attributes,
)
from pyrf.worlds.shapes.scenes import Scene
from pyrf.worlds.world import Frames, Turn, WorldPrompt


@dataclass(frozen=True, repr=False)
class ShapesWorld:
    """The part of the world that a model is trained on.

    Raises:
        ValueError: when it does not know a shape or a motion, or has none.
    """

    shapes: tuple[str, ...] = ("circle", "square", "triangle")
    motions: tuple[str, ...] = ("right", "left", "up", "down", "bounce", "still")

    name: ClassVar[str] = "shapes"
    followed: ClassVar[tuple[str, ...]] = ("color", "shape", "motion")
    fps: ClassVar[int] = FPS
    height: ClassVar[int] = HEIGHT
    width: ClassVar[int] = WIDTH

    def __post_init__(self) -> None:
        for kind, given, known in (("shape", self.shapes, SHAPES), ("motion", self.motions, MOTIONS)):
            unknown = [name for name in given if name not in known]
            if unknown or not given:
                raise ValueError(f"world knows no {kind} {unknown}; known: {', '.join(known)}")

    def __repr__(self) -> str:
        """By this name the files of older runs know the world they were made from."""
        return f"World(shapes={self.shapes!r}, motions={self.motions!r})"

    @property
    def vocabulary(self) -> list[str]:
        return captions.vocabulary()

    @property
    def taught(self) -> list[str]:
        return captions.vocabulary(self.shapes, self.motions)

    @property
    def limits(self) -> tuple[str, ...]:
        shapes = ", ".join(self.shapes)
        return (
            f"It shows one shape per prompt: {shapes}; of several it makes a mixture.",
            "It does not count: a number changes nothing.",
            "It does not understand negation, but for what does not move.",
            "It shows nothing that its words do not name.",
        )

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return captions.choices(self.shapes, self.motions)

    @property
    def criteria(self) -> tuple[str, ...]:
        return grading.criteria(self.motions)

    def sample(self, rng: random.Random) -> Attributes:
        """Draw attributes; a spinning circle is never drawn, since it cannot be told from a still one."""
        motion = rng.choice(self.motions)
        shapes = [s for s in self.shapes if not (motion == "spin" and s == "circle")]
        return Attributes(
            color=rng.choice(list(COLORS)),
            shape=rng.choice(shapes or ["square"]),
            size=rng.choice(list(SIZES)),
            motion=motion,
            speed=None if motion == "still" else rng.choice([*SPEEDS, None]),
            background=rng.choice(list(BACKGROUNDS)),
        )

    def draw(self, rng: random.Random, *, open_speed: bool = False) -> Scene:
        attributes = self.sample(rng)
        while open_speed and not attributes.speed_is_open:
            attributes = self.sample(rng)
        return Scene.sample(attributes, rng)

    def scene(self, seed: int) -> Scene:
        return self.draw(random.Random(seed))

    def held_out(self, count: int, *, open_speed: bool = False) -> list[WorldPrompt]:
        """Prompts with colours, shapes and motions in balance."""
        movers = tuple(motion for motion in self.motions if motion != "still")
        world = replace(self, motions=movers) if open_speed else self
        return grading.held_out_prompts(world.shapes, world.motions, count, open_speed=open_speed)

    def scene_for(self, prompt: WorldPrompt, rng: random.Random, /) -> Scene:
        asked = {name: value for name, value in prompt.asks.items() if value is not None}
        attributes = replace(self.sample(rng), **asked)
        if attributes.motion == "still":
            attributes = replace(attributes, speed=None)
        return Scene.sample(attributes, rng)

    def turned(self, seed: int, frame: int, rng: random.Random, /) -> Turn | None:
        """Another colour."""
        scene = self.scene(seed)
        color = rng.choice([color for color in COLORS if color != scene.attributes.color])
        after = replace(scene, attributes=replace(scene.attributes, color=color))
        return Turn(after, after.caption)

    def changed(self, prompt: WorldPrompt, rng: random.Random, /) -> WorldPrompt | None:
        """Nothing that has a speed comes to rest, and no circle is made to spin."""
        asks = prompt.asks
        values = {
            "color": tuple(COLORS),
            "shape": tuple(s for s in self.shapes if not (s == "circle" and asks.get("motion") == "spin")),
            "size": tuple(SIZES),
            "motion": tuple(
                m
                for m in self.motions
                if not (m == "still" and asks.get("speed"))
                and not (m == "spin" and asks.get("shape") == "circle")
            ),
            "speed": tuple(SPEEDS),
            "background": tuple(BACKGROUNDS),
        }
        return change(prompt, values, captions.WORDINGS, rng)

    def judge(self, frames: Frames, prompt: WorldPrompt, /) -> dict[str, bool]:
        """See `grading.judge`."""
        return grading.judge(frames, prompt)

    def measure(self, video: Frames, /) -> dict[str, float]:
        """See `grading.measure`."""
        return grading.measure(video)

    def is_broken(self, clip: Frames, /) -> bool:
        """See `grading.is_broken`."""
        return grading.is_broken(clip)
