"""Held-out prompts and how well videos follow them, as the detector sees it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from pyrf.worlds.shapes.attributes import BACKGROUNDS, COLORS, FPS, SIZES, SPEEDS, Attributes
from pyrf.worlds.shapes.captions import caption
from pyrf.worlds.shapes.detector import Detection, detect
from pyrf.worlds.world import Frames, WorldPrompt

HELD_OUT_SEED = 77
NAMED = ("color", "shape", "motion", "speed", "size", "background")
"""The last two count only where a caption names them."""
WINDOW = 2 * FPS
"""Frames of a window in which quality is measured."""
JUMP = 8.0
"""Pixels; an object that moves further between two frames is another one (the fastest move 2.3)."""


def criteria(motions: Sequence[str]) -> tuple[str, ...]:
    """Names that `judge` gives in a world of these motions."""
    return (*NAMED, *(f"motion/{motion}" for motion in sorted(motions)), "frozen", "lost")


def held_out_prompts(
    shapes: Sequence[str], motions: Sequence[str], count: int, *, open_speed: bool = False
) -> list[WorldPrompt]:
    """Prompts with colours, shapes and motions in balance, from a seed that training never draws.

    Args:
        open_speed: no caption names a speed, so that each may be followed at any.
    """
    rng = random.Random(f"held out {HELD_OUT_SEED}")
    colors = list(COLORS)
    prompts = []
    for i in range(count):
        motion = motions[i % len(motions)]
        attributes = Attributes(
            color=colors[(i + i // len(colors)) % len(colors)],
            shape=shapes[(i + i // len(motions)) % len(shapes)],
            size=rng.choice(list(SIZES)),
            motion=motion,
            speed=None if open_speed or motion == "still" else rng.choice(list(SPEEDS)),
            background=rng.choice(list(BACKGROUNDS)),
        )
        bare = caption(attributes, random.Random(i), named=0.0)
        full = caption(attributes, random.Random(i), named=1.0)
        everything = rng.random() < 0.65
        stated = NAMED if everything else NAMED[:4]
        values = asdict(attributes)
        prompts.append(WorldPrompt(full if everything else bare, {name: values[name] for name in stated}))
    return prompts


def judge(frames: Frames, prompt: WorldPrompt) -> dict[str, bool]:
    """Whether a clip shows each attribute that the prompt asks for, and what else is wrong with it.

    "motion/..." is the verdict on motion under the name of what was asked; "frozen" says that it was asked
    to move and stands still, "lost" that it shows no object.
    """
    seen, wanted = detect(frames), prompt.asks["motion"]
    verdicts = {name: seen.shows(name, prompt.asks) for name in NAMED if name in prompt.asks}
    verdicts[f"motion/{wanted}"] = seen.motion == wanted
    if wanted != "still":
        verdicts["frozen"] = seen.motion == "still"
    verdicts["lost"] = seen.shape is None
    return verdicts


def measure(video: Frames) -> dict[str, float]:
    """How a long stream moves and lasts, over its windows of 2 s.

    dynamic     pixels per second that the object moves, the mean
    drift       standard deviation of the quality, in points: the object's overlap with the best shape, 0
                where none is seen
    permanence  share of windows in which the object is seen in every frame and never jumps
    """
    whole = len(video) // WINDOW * WINDOW
    seen = [detect(window) for window in video[:whole].reshape(-1, WINDOW, *video.shape[1:])]
    return {
        "dynamic": FPS * float(np.mean([d.speed for d in seen])),
        "drift": 100 * float(np.std([d.fit for d in seen])),
        "permanence": float(np.mean([_lasts(d) for d in seen])),
    }


def is_broken(clip: Frames) -> bool:
    """Whether a clip's object is not seen in every frame, or jumps."""
    return not _lasts(detect(clip))


def _lasts(seen: Detection) -> bool:
    return seen.present == 1 and seen.jump < JUMP
