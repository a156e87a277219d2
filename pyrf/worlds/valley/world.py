"""The world as trainings, judges and pages use it: scenes, words, held-out prompts, a verdict on a clip."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pyrf.worlds.rewording import change
from pyrf.worlds.valley import captions, measuring, phrases
from pyrf.worlds.valley.attributes import (
    BALLOONS,
    CAMERAS,
    FPS,
    HEIGHT,
    LANDS,
    NAMES,
    NO_BALLOON,
    PATHS,
    SEASONAL,
    SEASONS,
    SPEEDS,
    STANDING,
    TIMES,
    WEATHERS,
    WIDTH,
    Attributes,
    fitting,
)
from pyrf.worlds.valley.detector import detect
from pyrf.worlds.valley.scene import Scene
from pyrf.worlds.world import Frames, Turn, WorldPrompt

EVERYTHING_SAID = 0.65
"""Share of the held-out prompts that say all there is to say."""
HELD_OUT_SEED = 77


@dataclass(frozen=True)
class Valley:
    """Layered landscapes under a moving camera, with a hot air balloon.

    Attributes:
        times, lands, seasons, weathers, balloons, paths, cameras: the part of the world that scenes and
            prompts are drawn from.
        empty: share of the scenes without a balloon.

    Raises:
        ValueError: when a value is not known, or nothing is left to choose from.
    """

    times: tuple[str, ...] = TIMES
    lands: tuple[str, ...] = LANDS
    seasons: tuple[str, ...] = SEASONS
    weathers: tuple[str, ...] = WEATHERS
    balloons: tuple[str, ...] = tuple(BALLOONS)
    paths: tuple[str, ...] = PATHS
    cameras: tuple[str, ...] = CAMERAS
    empty: float = 0.2

    name: ClassVar[str] = "valley"
    followed: ClassVar[tuple[str, ...]] = ("time", "land", "weather", "balloon", "camera")
    fps: ClassVar[int] = FPS
    height: ClassVar[int] = HEIGHT
    width: ClassVar[int] = WIDTH

    def __post_init__(self) -> None:
        all_known = {
            "times": TIMES,
            "lands": LANDS,
            "seasons": SEASONS,
            "weathers": WEATHERS,
            "balloons": tuple(BALLOONS),
            "paths": PATHS,
            "cameras": CAMERAS,
        }
        for name, known in all_known.items():
            given = getattr(self, name)
            if not given or not set(given) <= set(known):
                raise ValueError(f"the valley's {name} are some of {', '.join(known)}; got {given!r}")
        if not 0 <= self.empty <= 1:
            raise ValueError(f"empty is a share from 0 to 1, got {self.empty!r}")

    @property
    def vocabulary(self) -> list[str]:
        """Every word that a caption can hold, sorted."""
        return phrases.vocabulary()

    @property
    def taught(self) -> list[str]:
        return phrases.vocabulary(self._kept)

    @property
    def _kept(self) -> dict[str, tuple[str, ...]]:
        """Attribute -> the values that scenes have."""
        return {
            "time": self.times,
            "land": self.lands,
            "season": self.seasons,
            "weather": self.weathers,
            "balloon": (*self.balloons, *((NO_BALLOON,) if self.empty else ())),
            "path": self.paths,
            "camera": self.cameras,
        }

    @property
    def limits(self) -> tuple[str, ...]:
        return (
            "It shows one landscape per prompt, with one balloon or none.",
            "It does not count: a number changes nothing.",
            "It understands negation only in its own phrases, such as no balloon.",
            "It shows nothing that its words do not name.",
        )

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return phrases.choices(self._kept)

    @property
    def criteria(self) -> tuple[str, ...]:
        """Every name that `judge` may give."""
        return (*NAMES, "frozen")

    def sample(self, rng: random.Random) -> Attributes:
        """Draw attributes. Foggy scenes and still cameras are half as frequent as the others."""
        land = rng.choice(self.lands)
        weathers = [w for w in self.weathers for _ in range(1 if w == "foggy" else 2)]
        cameras = [c for c in self.cameras for _ in range(1 if c == "still" else 2)]
        camera = rng.choice(cameras)
        has_balloon = rng.random() >= self.empty
        return Attributes(
            time=rng.choice(self.times),
            land=land,
            season=rng.choice(self.seasons) if land in SEASONAL else None,
            weather=rng.choice(weathers),
            balloon=rng.choice(self.balloons) if has_balloon else None,
            path=rng.choice(self.paths) if has_balloon else None,
            camera=camera,
            speed=None if camera == "still" else rng.choice((*SPEEDS, None)),
        )

    def draw(self, rng: random.Random, *, open_speed: bool = False) -> Scene:
        """Draw a scene; with `open_speed`, one whose camera moves at a speed that captions do not name."""
        attributes = self.sample(rng)
        while open_speed and not attributes.speed_is_open:
            attributes = self.sample(rng)
        return Scene(attributes, rng)

    def scene(self, seed: int) -> Scene:
        """The scene of a seed; the same seed gives the same scene for ever."""
        return self.draw(random.Random(seed))

    def held_out(self, count: int, *, open_speed: bool = False) -> list[WorldPrompt]:
        """Prompts in which each attribute's values come equally often, from seeds that no scene has."""
        world = self
        if open_speed:
            movers = tuple(camera for camera in self.cameras if camera != "still")
            world = replace(self, cameras=movers)
        columns = world._columns(count)
        prompts = []
        for number in range(count):
            attributes = fitting({name: column[number] for name, column in columns.items()})
            rng = random.Random(f"held out {HELD_OUT_SEED} {number}")
            stated = captions.draw_stated(attributes, rng, named=1 if rng.random() < EVERYTHING_SAID else 0.7)
            stated = (stated | {"camera"}) - {"speed"} if open_speed else stated
            asks = {name: attributes.facts[name] for name in NAMES if name in stated}
            asks |= {"speed": None} if open_speed else {}
            prompts.append(WorldPrompt(captions.compose(attributes, stated, rng), asks))
        return prompts

    def _columns(self, count: int) -> dict[str, list[str | None]]:
        values: dict[str, Sequence[str | None]] = {
            "time": self.times,
            "land": self.lands,
            "season": self.seasons,
            "weather": self.weathers,
            "balloon": (*self.balloons, None) if self.empty else self.balloons,
            "path": self.paths,
            "camera": self.cameras,
            "speed": tuple(SPEEDS),
        }
        columns = {}
        for name, choices in values.items():
            column = [choices[number % len(choices)] for number in range(count)]
            random.Random(f"held out {HELD_OUT_SEED} {name}").shuffle(column)
            columns[name] = column
        return columns

    def scene_for(self, prompt: WorldPrompt, rng: random.Random, /) -> Scene:
        asked = {name: value for name, value in prompt.asks.items() if value is not None}
        while True:
            values = {**self.sample(rng).facts, **asked}
            values["season"] = values["season"] or rng.choice(self.seasons)
            values["path"] = values["path"] or rng.choice(self.paths)
            attributes = fitting(values)
            if asked.items() <= attributes.facts.items():
                return Scene(attributes, rng)

    def turned(self, seed: int, frame: int, rng: random.Random, /) -> Turn | None:
        """Balloons neither come nor go, and no season comes to a land without one."""
        scene = self.scene(seed)
        now, values = scene.attributes, self._kept | {"speed": tuple(SPEEDS)}
        values["land"] = tuple(land for land in self.lands if now.season is not None or land not in SEASONAL)
        values["balloon"] = self.balloons
        options = {
            name: [value for value in values[name] if value != getattr(now, name)]
            for name in NAMES
            if getattr(now, name) is not None
        }
        names = [name for name, others in options.items() if others]
        if not names:
            return None
        name = rng.choice(names)
        after = scene.turned(name, rng.choice(options[name]), frame, rng)
        return Turn(after, lambda of: captions.caption(after.attributes, of, saying=name))

    def changed(self, prompt: WorldPrompt, rng: random.Random, /) -> WorldPrompt | None:
        """Balloons neither come nor go, what has a speed does not stop, and what has a season keeps one."""
        asks = prompt.asks
        seasonal = [land for land in self.lands if land in SEASONAL or "season" not in asks]
        values: dict[str, Sequence[str]] = {
            "time": self.times,
            "land": seasonal,
            "season": self.seasons,
            "weather": self.weathers,
            "balloon": () if asks.get("balloon") == NO_BALLOON else self.balloons,
            "path": self.paths,
            "camera": [camera for camera in self.cameras if camera != "still" or "speed" not in asks],
            "speed": tuple(SPEEDS),
        }
        return change(prompt, values, phrases.TABLES, rng)

    def judge(self, frames: Frames, prompt: WorldPrompt, /) -> dict[str, bool]:
        """Whether a clip, uint8 [T, 192, 320, 3], shows each attribute that the prompt asks for.

        "frozen" says that the camera was asked to move and stands still. A single frame has no verdicts on
        what moves.
        """
        moves = len(frames) > 1
        seen = detect(frames if moves else frames.repeat(2, axis=0))
        names = NAMES if moves else STANDING
        verdicts = {name: seen.shows(name, prompt.asks) for name in names if name in prompt.asks}
        if moves and prompt.asks.get("camera") in ("right", "left"):
            verdicts["frozen"] = seen.camera == "still"
        return verdicts

    def measure(self, video: Frames, /) -> dict[str, float]:
        """See `measuring.measure`."""
        return measuring.measure(video)

    def is_broken(self, clip: Frames, /) -> bool:
        """See `measuring.is_broken`."""
        return measuring.is_broken(clip)
